// LUKS2 metadata whose JSON is well-formed but says what must not be: rows of the table that
// luks2_hostile_test.cpp runs.
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/json.h"
#include "luks/codec_test_models.h"
#include "luks/hostile_test_rows.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks::testing {
namespace {

// One change of a JSON text: the value at `pointer` is spelt `value`; an empty one removes it.
struct Edit {
  std::string pointer;
  std::string value;
};

// `json` after `edits`, spelt. Values are put in as text, so that they may be anything.
std::string edited(Json json, const std::vector<Edit>& edits) {
  std::vector<std::pair<std::string, std::string>> spellings;
  for (const Edit& edit : edits) {
    const Json::json_pointer at(edit.pointer);
    if (edit.value.empty()) {
      EXPECT_EQ(json.at(at.parent_pointer()).erase(at.back()), 1U) << edit.pointer;
    } else {
      const std::string mark = fmt::format("@{}@", spellings.size());
      json[at] = mark;
      spellings.emplace_back('"' + mark + '"', edit.value);
    }
  }
  std::string text = json.dump();
  for (const auto& [mark, spelling] : spellings) {
    text.replace(text.find(mark), mark.size(), spelling);
  }
  return text;
}

class Table {
 public:
  explicit Table(const Header& header)
      : copy_(encode_luks2(header, Luks2Copy::kPrimary, Bytes(64))),
        json_(Json::parse(luks2_json(header))) {}

  std::vector<HostileRow> rows;

  void edit(const std::string& name, const std::vector<Edit>& edits, const std::string& message) {
    text(name, edited(json_, edits), message);
  }
  // Named after the change.
  void edit(const std::string& pointer, const std::string& value, const std::string& message) {
    edit(pointer + " " + printable(value, 40), {{pointer, value}}, message);
  }
  void text(const std::string& name, const std::string& json, const std::string& message) {
    rows.push_back({.name = name, .bytes = luks2_copy_with_json(copy_, json), .message = message});
  }
  const Json& json() const { return json_; }

 private:
  Bytes copy_;
  Json json_;
};

// --- each member by itself
// ------------------------------------------------------------------------

// What a member can be instead of what it is. None of these is ever right in the sample.
std::vector<std::string> wrong_values(const Json& value) {
  if (value.is_string()) return {"null", "true", "1", "1.5", "[]", "{}", R"("")"};
  if (value.is_number()) {
    return {"null",   "false", "-1", "1.0", "1e3", "-0", "4294967296", "18446744073709551616",
            R"("1")", "[1]",   "{}"};
  }
  if (value.is_array())
    return {"null", "true", "0", R"("0")", "{}", "[0]", "[null]", "[[]]", "[{}]"};
  return {"null", "true", "1", R"("x")", "[]"};
}

bool is_ours(const std::string& name) { return !name.starts_with("x-") && name != "optional"; }

// Every member of the known objects, and every id.
void visit(const Json& value, const std::string& pointer,
           const std::function<void(const std::string&, const Json&)>& each) {
  if (!value.is_object()) return;
  for (const auto& [name, member] : value.items()) {
    const bool token_extra = pointer == "/tokens/3" && name == "n";
    if (!is_ours(name) || token_extra || name == "key_description") continue;
    const std::string path = fmt::format("{}/{}", pointer, name);
    each(path, member);
    visit(member, path, each);
  }
}

void add_wrong_types(Table& table) {
  visit(table.json(), "", [&](const std::string& pointer, const Json& value) {
    const std::string name = pointer.substr(pointer.rfind('/') + 1);
    for (const std::string& wrong : wrong_values(value)) {
      // The array form of "requirements" is the specification's.
      if (name == "requirements" && wrong == "[]") continue;
      const bool is_nested = value.is_object() && (pointer.rfind('/') != 0 || name == "config");
      table.edit(pointer, wrong, is_nested ? "not a JSON object" : "'" + name + "' ");
    }
  });
}

void add_missing(Table& table) {
  visit(table.json(), "", [&](const std::string& pointer, const Json&) {
    const std::string name = pointer.substr(pointer.rfind('/') + 1);
    const bool is_id = name.find_first_not_of("0123456789") == std::string::npos;
    const bool optional = name == "priority" || name == "flags" || name == "requirements" ||
                          name == "mandatory" || pointer == "/segments/0/integrity";
    if (is_id || optional) return;
    table.edit("no " + pointer, {{pointer, ""}}, "'" + name + "' is missing");
  });
}

// Every member and id said twice: first what it is, then something else.
void add_repeated(Table& table) {
  visit(table.json(), "", [&](const std::string& pointer, const Json& value) {
    const std::string name = pointer.substr(pointer.rfind('/') + 1);
    const std::string twice = fmt::format("{},\"{}\":null", value.dump(), name);
    table.edit("twice " + pointer, {{pointer, twice}},
               fmt::format("JSON member '{}' is there twice", name));
  });
  table.text("twice, once escaped",
             edited(table.json(), {{"/config/json_size", R"("12288","json\u005fsize":"1")"}}),
             "JSON member 'json_size' is there twice");
}

void add_ids(Table& table) {
  const std::vector<std::string> bad = {"",  "00", "01",  "-0", "-1",         "+1", " 1", "1 ",
                                        "a", "1a", "0x1", "1.", "4294967296", "１", "32"};
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {"keyslots", "keyslot"}, {"tokens", "token"}, {"segments", "segment"}, {"digests", "digest"}};
  for (const auto& [member, kind] : kinds) {
    for (const std::string& id : bad) {
      table.edit(fmt::format("{} id '{}'", kind, id), {{fmt::format("/{}/{}", member, id), "{}"}},
                 fmt::format("{} id '{}' is not a number from 0 to {}", kind, id,
                             kind == "digest" ? 7 : 31));
    }
  }
  table.edit("/digests/8", "{}", "digest id '8' is not a number from 0 to 7");
  for (const std::string pointer :
       {"/digests/0/keyslots", "/digests/0/segments", "/tokens/0/keyslots"}) {
    for (const std::string& id : bad) {
      table.edit(pointer, fmt::format(R"(["{}"])", id), "an array of ids, strings from \"0\"");
    }
  }
}

// 64-bit numbers have one spelling.
void add_numbers(Table& table) {
  for (const std::string pointer :
       {"/keyslots/0/area/offset", "/keyslots/1/area/size", "/segments/0/offset",
        "/segments/0/size", "/segments/0/iv_tweak", "/config/json_size", "/config/keyslots_size"}) {
    const std::string name = pointer.substr(pointer.rfind('/') + 1);
    for (const std::string value :
         {" 4096", "4096 ", "+4096", "-4096", "04096", "00", "0x1000", "4096.0", "4e3", "4 096",
          "4,096", "18446744073709551616", "99999999999999999999999999", "４０９６", "4096\\u0000",
          "\\n4096", "DYNAMIC", "none"}) {
      // A zero byte ends what 'size' is compared with "dynamic" by.
      const bool text = name == "size" && pointer.starts_with("/segments") &&
                        value.find("u0000") != std::string::npos;
      table.edit(pointer, '"' + value + '"',
                 text ? R"('size' is "4096\x5cu0000", not free of zero bytes)"
                      : "not a string of decimal digits below 2^64");
    }
  }
}

void add_bytes(Table& table) {
  for (const std::string pointer :
       {"/keyslots/0/kdf/salt", "/keyslots/1/kdf/salt", "/digests/0/salt", "/digests/0/digest"}) {
    for (const std::string value : {"AAA", "AAAA=", "A===", "====", "AA=A", "AB==", "AAB=",
                                    "AAAA AAAA", "AAAA\\nAAAA", "AA-_", "AAAAé", "*"}) {
      table.edit(pointer, '"' + value + '"', "not a base64 string");
    }
    table.edit(pointer, '"' + std::string(684 + 4, 'A') + '"', "bytes, not ");
  }
  table.edit("/digests/0/digest", R"("AAAAAAAAAAAAAAAAAAAA")",
             "'digest' has 15 bytes, not 16 to 64");
  table.edit("/digests/0/digest", '"' + to_base64(Bytes(65)) + '"', "'digest' has 65 bytes");
  table.edit("/digests/0/salt", '"' + to_base64(Bytes(513)) + '"', "'salt' has 513 bytes");
}

void add_ranges(Table& table) {
  const std::string key_size = "not an integer from 1 to 512";
  for (const std::string pointer : {"/keyslots/0/key_size", "/keyslots/0/area/key_size"}) {
    for (const std::string value : {"0", "513", "4096", "4294967295"}) {
      table.edit(pointer, value, fmt::format("'key_size' is {}, {}", value, key_size));
    }
  }
  for (const std::string value : {"0", "1", "3999", "4001", "4294967295"}) {
    table.edit("/keyslots/0/af/stripes", value, "keyslot 0: af: 'stripes' is " + value);
  }
  for (const std::string pointer :
       {"/keyslots/0/kdf/iterations", "/keyslots/1/kdf/time", "/keyslots/1/kdf/memory",
        "/keyslots/1/kdf/cpus", "/digests/0/iterations"}) {
    table.edit(pointer, "0", "is 0, not an integer from 1 to 4294967295");
  }
  table.edit("/keyslots/0/priority", "3", "'priority' is 3, not an integer from 0 to 2");
  for (const std::string value : {"0", "1", "511", "513", "520", "4294967295"}) {
    table.edit("/segments/0/sector_size", value, "not a positive multiple of 512");
  }
  table.edit("/keyslots/0/af/type", R"("luks2")",
             R"(keyslot 0: af: 'type' is "luks2", not "luks1")");
  table.edit("/keyslots/0/area/type", R"("cooked")", "keyslot 0: area: 'type' is \"cooked\"");
  for (const std::string pointer :
       {"/keyslots/0/type", "/keyslots/0/kdf/type", "/keyslots/0/kdf/hash", "/segments/0/type",
        "/segments/0/encryption", "/digests/0/type", "/digests/0/hash", "/tokens/0/type"}) {
    table.edit(pointer, R"("luks2\u0000")", "not free of zero bytes");
  }
  table.edit("/config/flags", R"(["a\u0000b"])", "'flags' is");
  table.edit("/config/requirements", R"([""])", "'requirements' is");
  table.edit("/config/requirements/mandatory", R"(["a",1])", "'mandatory' is");
  table.edit("/segments/0/integrity", R"({"type":"x"})", "'journal_encryption' is missing");
}

// --- objects against each other
// -------------------------------------------------------------------

void add_references(Table& table) {
  table.edit("/tokens/0/keyslots", R"(["2"])", "token 0: keyslot 2 does not exist");
  table.edit("/tokens/3/keyslots", R"(["0","31"])", "token 3: keyslot 31 does not exist");
  table.edit("/digests/0/keyslots", R"(["0","2"])", "digest 0: keyslot 2 does not exist");
  table.edit("/digests/1/segments", R"(["1"])", "digest 1: segment 1 does not exist");
  table.edit("keyslot that a digest is for is gone", {{"/keyslots/5", ""}},
             "digest 1: keyslot 5 does not exist");
  table.edit("/digests/0/segments", "[]", "segment 0: no digest is for it");
  table.edit("no digests", {{"/digests", "{}"}}, "keyslot 0: 0 digests are for it, not 1");
  table.edit("/digests/0/keyslots", R"(["0"])", "keyslot 1: 0 digests are for it, not 1");
  table.edit("/digests/1/keyslots", R"(["5","1"])", "keyslot 1: 2 digests are for it, not 1");
  table.edit("/config/requirements/mandatory", R"(["online-reencrypt","online-reencrypt-v2"])",
             "requirements name 2 versions of 'online-reencrypt'");
  table.edit("/config/requirements/mandatory", R"(["online-reencrypt-v2"])",
             "the requirement 'online-reencrypt' without a keyslot");
}

void add_config_rules(Table& table) {
  for (const std::string value : {"0", "4096", "12287", "12289", "16384", "18446744073709551615"}) {
    table.edit("/config/json_size", '"' + value + '"',
               fmt::format("json_size is {}, not 12288", value));
  }
  table.edit("/config/keyslots_size", R"("134221824")", "is more than 134217728");
  table.edit("/config/keyslots_size", R"("18446744073709551615")", "is more than 134217728");
  table.edit("/config/keyslots_size", R"("16744447")", "is not a multiple of 4096");
  table.edit(
      "/config/keyslots_size", R"("16748544")",
      "the keyslots area ends at byte 16781312, behind the start of the payload at 16777216");
  table.edit("/config/keyslots_size", R"("0")", "is not in the keyslots area, 32768 to 32768");
  table.edit("/config/keyslots_size", R"("258048")", "keyslot 1: area of 258048 bytes at 290816");
  table.edit("/segments/0/offset", R"("4096")", "behind the start of the payload at 4096");
  table.edit("/segments/0/offset", R"("32768")", "behind the start of the payload at 32768");
}

void add_area_rules(Table& table) {
  const std::string offset = "/keyslots/0/area/offset";
  const std::string size = "/keyslots/0/area/size";
  for (const std::string value : {"0", "4096", "16384", "28672"}) {
    table.edit(offset, '"' + value + '"',
               "keyslot 0: area of 258048 bytes at " + value + " is not in");
  }
  for (const std::string value : {"1", "32769", "33280", "36863", "18446744073709551615"}) {
    table.edit(offset, '"' + value + '"', "is not aligned to 4096");
  }
  for (const std::string value :
       {"16523264", "16777216", "9223372036854775808", "18446744073709547520"}) {
    table.edit(offset, '"' + value + '"', "is not in the keyslots area, 32768 to 16777216");
  }
  table.edit(size, R"("0")", "keyslot 0: area has no bytes");
  table.edit(size, R"("258049")", "is not aligned to 4096");
  table.edit(size, R"("253952")", "keyslot 0: area of 253952 bytes is too small for 256000");
  table.edit(size, R"("4096")", "is too small for 256000");
  table.edit(size, R"("262144")", "keyslots 0 and 1: areas overlap");
  table.edit(size, R"("16744448")", "keyslots 0 and 1: areas overlap");
  for (const std::string value :
       {"16748544", "9223372036854775808", "18446744073709518848", "18446744073709547520"}) {
    table.edit(size, '"' + value + '"',
               "keyslot 0: area of " + value + " bytes at 32768 is not in");
  }
  table.edit(offset, R"("290816")", "keyslots 0 and 1: areas overlap");
  table.edit(offset, R"("294912")", "keyslots 0 and 1: areas overlap");
  table.edit("/keyslots/5/area/offset", R"("36864")", "keyslots 0 and 5: areas overlap");
  table.edit("/keyslots/5/area/offset", R"("544768")", "keyslots 1 and 5: areas overlap");
  table.edit("an unknown keyslot's area overlaps",
             {{"/keyslots/5",
               R"({"type":"x","key_size":0,"area":{"type":"x","offset":"32768","size":"4096"}})"}},
             "keyslots 0 and 5: areas overlap");
  table.edit("an unknown keyslot without area", {{"/keyslots/5", R"({"type":"x","key_size":0})"}},
             "keyslot 5: 'area' is missing");
  table.edit("/keyslots/0/key_size", "65", "is too small for 260000");
}

void add_segment_rules(Table& table) {
  table.edit("no segments", {{"/segments", "{}"}, {"/digests/0/segments", "[]"}},
             "there are no segments");
  table.edit("/segments/0/offset", R"("16777217")",
             "'offset' is \"16777217\", not a multiple of 512");
  table.edit("/segments/0/offset", R"("16777728")", "not a multiple of the sector size");
  table.edit("/segments/0/size", R"("0")", "'size' is \"0\", not a positive multiple of 512");
  table.edit("/segments/0/size", R"("511")", "not a positive multiple of 512");
  table.edit("/segments/0/size", R"("512")", "not a multiple of the sector size");
  table.edit("/segments/0/size", R"("18446744073709547520")", "segment 0: ends beyond 2^64");
  table.edit("/segments/0/iv_tweak", R"("1")", "'iv_tweak' is \"1\", not a multiple of the sector");
  table.edit("/segments/0/flags", R"(["backup-final"])", "all segments are backups");
  const std::string linear = R"({"type":"linear","offset":"16777216","size":"dynamic"})";
  table.edit("/segments/2", linear, "segment 1 is missing before segment 2");
  table.edit("/segments/31", linear, "segment 1 is missing before segment 31");
  table.edit("/segments/1", linear, "segments 0 and 1 overlap");
  table.edit("dynamic but not the last",
             {{"/segments/0/size", R"("dynamic")"}, {"/segments/1", linear}},
             "segment 0: 'dynamic' size, but not the last segment");
  table.edit("no room for sixteen exabytes",
             {{"/segments/1", R"({"type":"linear","offset":"18446744073709551104","size":"512"})"}},
             "segment 1: ends beyond 2^64");
}

void add_reencryption(Table& table) {
  const std::string area = "/keyslots/2/area";
  table.edit("/keyslots/2/key_size", "0", "'key_size' is 0, not an integer from 1");
  table.edit("/keyslots/2/key_size", "64", "'key_size' is 64, not an integer from 1 to 1");
  table.edit("/keyslots/2/mode", R"("sideways")", "not one of decrypt, encrypt, reencrypt");
  table.edit("/keyslots/2/mode", "7", "keyslot 2: 'mode' is 7, not a string");
  table.edit("no mode", {{"/keyslots/2/mode", ""}}, "keyslot 2: 'mode' is missing");
  table.edit("/keyslots/2/direction", R"("up")", "not one of backward, forward");
  table.edit("no direction", {{"/keyslots/2/direction", ""}}, "keyslot 2: 'direction' is missing");
  table.edit("no area", {{area, ""}}, "keyslot 2: 'area' is missing");
  table.edit("no area type", {{area + "/type", ""}}, "keyslot 2: area: 'type' is missing");
  table.edit("no area hash", {{area + "/hash", ""}}, "keyslot 2: area: 'hash' is missing");
  table.edit("no shift size", {{area + "/shift_size", ""}}, "'shift_size' is missing");
  for (const std::string value : {"0", "256", "511", "768", "4095", "2147483649"}) {
    table.edit(area + "/sector_size", value, "keyslot 2: area: 'sector_size' is " + value);
  }
  for (const std::string value : {"0", "1", "513", "16777217"}) {
    table.edit(area + "/shift_size", '"' + value + '"', "not a positive multiple of 512");
  }
  table.edit(area + "/size", R"("18446744073709547520")", "is not in the keyslots area");
  table.edit(area + "/offset", R"("290816")", "keyslots 1 and 2: areas overlap");
  const std::string second =
      R"({"type":"reencrypt","key_size":1,"mode":"encrypt","direction":"forward",)"
      R"("area":{"type":"none","offset":"8388608","size":"4096"}})";
  table.edit("/keyslots/3", second, "there are 2 keyslots of type 'reencrypt'");
  table.edit("no requirement", {{"/config/requirements", ""}},
             "a keyslot of type 'reencrypt' without the requirement");
  table.edit("/config/requirements/mandatory", R"(["offline-reencrypt"])",
             "a keyslot of type 'reencrypt' without the requirement");
  table.edit("no keyslot", {{"/keyslots/2", ""}, {"/digests/2", ""}},
             "the requirement 'online-reencrypt' without a keyslot");
  table.edit("/segments/1/flags", R"(["backup-moved-segment"])",
             "segment 2: stands behind backup segment 1");
  table.edit("/segments/3/flags", "[]", "segment 2: 'dynamic' size, but not the last segment");
  table.edit("/segments/1/offset", R"("83882496")", "not a multiple of the sector size");
  table.edit("/segments/1/offset", R"("79691776")", "segments 0 and 1 overlap");
  table.edit("/segments/1/size", R"("67112960")", "segments 1 and 2 overlap");
  table.edit("/segments/2/offset", R"("16777216")", "overlap");
  table.edit("no segment 1", {{"/segments/1", ""}, {"/digests/1/segments", R"(["0","4"])"}},
             "segment 1 is missing before segment 2");
  table.edit("no segment 3", {{"/segments/3", ""}, {"/digests/0/segments", R"(["2"])"}},
             "segment 3 is missing before segment 4");
  table.edit("/segments/3/flags", R"(["backup-x"])", "without a segment of flag 'backup-previous'");
  table.edit("/segments/4/flags", R"(["backup-previous"])",
             "without a segment of flag 'backup-final'");
  const std::string unlike = "unlike the backup segments of the re-encryption";
  table.edit("/segments/0/encryption", R"("cipher_null-ecb")", "segment 0: " + unlike);
  table.edit("/segments/1/encryption", R"("aes-cbc-plain64")", "segment 1: " + unlike);
  table.edit("/segments/2/sector_size", "512", "segment 2: " + unlike);
  table.edit("/segments/4/encryption", R"("serpent-xts-plain64")", "segment 1: " + unlike);
  table.edit("a segment of plaintext", {{"/segments/1/type", R"("linear")"}},
             "segment 1: " + unlike);
  table.edit("no backups",
             {{"/segments/3", ""},
              {"/segments/4", ""},
              {"/digests/0/segments", R"(["2"])"},
              {"/digests/1/segments", R"(["0","1"])"}},
             "without a segment of flag 'backup-previous'");
  table.edit("a backup without digest", {{"/digests/1/segments", R"(["0","1"])"}},
             "segment 4: no digest is for it");
}

}  // namespace

std::vector<HostileRow> luks2_member_rows() {
  Table table(sample_luks2());
  add_wrong_types(table);
  add_missing(table);
  add_repeated(table);
  add_ids(table);
  add_numbers(table);
  add_bytes(table);
  add_ranges(table);
  return std::move(table.rows);
}

std::vector<HostileRow> luks2_rule_rows() {
  Table table(sample_luks2());
  add_references(table);
  add_config_rules(table);
  add_area_rules(table);
  add_segment_rules(table);
  Table reencryption(sample_reencryption());
  add_reencryption(reencryption);
  std::vector<HostileRow> rows = std::move(table.rows);
  rows.insert(rows.end(), reencryption.rows.begin(), reencryption.rows.end());
  return rows;
}

}  // namespace lukskeep::luks::testing
