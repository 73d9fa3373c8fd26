#include "vm/disk.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "vm/json_member.h"
#include "vm/scripted_monitor_test_tools.h"

namespace lukskeep::vm {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

const std::vector<std::string> kMachine = {"device_add", "add-fd"};
const std::vector<std::string> kDaemon = {"block-export-add"};

// As much of QEMU as these commands need: it keeps objects, nodes and devices by name.
class FakeQemu {
 public:
  std::string operator()(const std::string& line) {
    const Json asked = Json::parse(line);
    const std::string command = asked["execute"];
    const std::string subject_of = command + " " + subject(asked["arguments"]);
    const bool refused_once = refused_first.erase(subject_of) == 1;
    if (refused_once || refused.contains(subject_of) || refused.contains(command)) {
      return refusal_of(line, "not today");
    }
    if (command == silent_for) return {};
    if (command == close_at) return "close";
    if (command == nonsense_at) return "no JSON\n";
    const Json& arguments = asked["arguments"];
    if (command == "object-del" && !things["objects"].contains(arguments["id"])) {
      return refusal_of(line, "no such object");
    }
    if (command == "query-named-block-nodes") return reply_to(line, list("nodes"));
    if (command == "qom-list") return reply_to(line, list("devices"));
    if (command == "query-block-exports") return reply_to(line, list("exports"));
    if (command == "add-fd") {
      things["fdsets"]["3"] = {};
      return reply_to(line, {{"fdset-id", 3}, {"fd", 12}});
    }
    if (command == "block-export-del" && exports_end_later) return end_later(line, arguments["id"]);
    std::string after;
    if (command == "device_del" || command == "block-export-del") after = goodbye(arguments["id"]);
    change(command, arguments);
    if (subject_of == done_without_answer) return {};
    return reply_to(line, Json::object()) + after;
  }

  // "nodes lk.d.luks", for all there is.
  std::set<std::string> all() const {
    std::set<std::string> names;
    for (const auto& [kind, some] : things) {
      for (const auto& [name, value] : some) names.insert(kind + " " + name);
    }
    return names;
  }

  std::set<std::string> refused;        // commands, or commands with what they are about
  std::set<std::string> refused_first;  // the same, but once only
  std::string silent_for;
  std::string done_without_answer;  // a command with what it is about
  std::string close_at;
  std::string nonsense_at;
  std::string event = "DEVICE_DELETED";
  bool exports_end_later = false;  // when a test takes them away
  std::map<std::string, std::map<std::string, Json>> things;

 private:
  std::string end_later(const std::string& line, const std::string& id) {
    Json& one = things["exports"].at(id);
    if (true_member(one, "shutting-down")) return refusal_of(line, "already shutting down");
    one["shutting-down"] = true;
    return reply_to(line, Json::object());
  }
  static std::string subject(const Json& arguments) {
    for (const char* name : {"id", "node-name"}) {
      if (arguments.contains(name)) return arguments[name];
    }
    return arguments.contains("fdset-id") ? "3" : "";
  }
  std::string goodbye(const std::string& id) const {
    if (event.empty()) return {};
    return Json{{"event", event}, {"data", {{"device", id}}}}.dump() + "\r\n";
  }
  Json list(const std::string& kind) const {
    Json all = Json::array();
    const auto found = things.find(kind);
    if (found == things.end()) return all;
    for (const auto& [name, value] : found->second) {
      Json one = value;
      one["name"] = one["id"] = name;
      if (kind != "exports") one["node-name"] = name;  // of an export the node that it gives
      one["file"] = text_member(value, "filename");
      one["ro"] = true_member(value, "read-only");
      one["type"] = kind == "devices" ? "child<" + text_member(value, "driver") + ">"
                                      : text_member(value, "type");
      all.push_back(one);
    }
    return all;
  }
  void change(const std::string& command, const Json& arguments) {
    static const std::map<std::string, std::string> makes = {{"blockdev-add", "nodes"},
                                                             {"object-add", "objects"},
                                                             {"device_add", "devices"},
                                                             {"nbd-server-start", "servers"},
                                                             {"block-export-add", "exports"}};
    static const std::map<std::string, std::string> removes = {
        {"blockdev-del", "nodes"}, {"object-del", "objects"},      {"device_del", "devices"},
        {"remove-fd", "fdsets"},   {"nbd-server-stop", "servers"}, {"block-export-del", "exports"}};
    const std::string name = subject(arguments);
    if (makes.contains(command)) things[makes.at(command)][name] = arguments;
    const bool stays = command == "device_del" && event != "DEVICE_DELETED";
    if (removes.contains(command) && !stays) things[removes.at(command)].erase(name);
  }
};

struct Fixture {
  explicit Fixture(const std::vector<std::string>& commands = kMachine,
                   std::uint32_t timeout_ms = 60'000)
      : monitor(like_qemu(commands, [this](const std::string& line) { return qemu(line); })),
        qmp(Qmp::connect(monitor.path(), {.timeout_ms = timeout_ms})) {}

  std::vector<std::string> commands() {
    std::vector<std::string> names;
    for (const Json& one : monitor.asked()) {
      const std::string name = one["execute"];
      if (!name.starts_with("query-") && name != "qom-list") names.push_back(name);
    }
    return names;
  }
  Error attach_error(const DiskRequest& request) {
    try {
      attach_disk(qmp, request);
    } catch (const Error& error) {
      return error;
    }
    return Error(Code::kInternal, "nothing was wrong");
  }

  FakeQemu qemu;
  ScriptedMonitor monitor;
  Qmp qmp;
};

DiskRequest detached() {
  return {.id = "d", .payload = "/p", .header = "/h", .passphrase = as_byte_view("abc123")};
}

TEST(Disk, AttachesInTheOrderOfTheLayersAndLeavesNoSecret) {
  Fixture fixture;
  EXPECT_EQ(attach_disk(fixture.qmp, detached()), KeyTransfer::kSealed);
  EXPECT_THAT(fixture.commands(),
              ElementsAre("object-del", "object-del", "blockdev-add", "blockdev-add",
                          "blockdev-add", "add-fd", "object-add", "remove-fd", "object-add",
                          "blockdev-add", "object-del", "object-del", "device_add"));
  EXPECT_THAT(fixture.qemu.all(), ElementsAre("devices d", "nodes lk.d.header", "nodes lk.d.luks",
                                              "nodes lk.d.payload", "nodes lk.d.raw"));
  const Json& luks = fixture.qemu.things["nodes"]["lk.d.luks"];
  EXPECT_EQ(luks["file"], "lk.d.raw");
  EXPECT_EQ(luks["header"], "lk.d.header");
  for (const Json& asked : fixture.monitor.asked()) {
    EXPECT_THAT(asked.dump(), Not(HasSubstr("abc123")));
    EXPECT_THAT(asked.dump(), Not(HasSubstr("YWJjMTIz")));
  }
}

TEST(Disk, TheMasterKeyIsGoneFromMemoryThatWasHandedOver) {
  Fixture fixture;
  attach_disk(fixture.qmp, detached());
  char byte = 0;
  ASSERT_GE(fixture.monitor.received_fd(), 0);
  EXPECT_EQ(pread(fixture.monitor.received_fd(), &byte, 1, 0), 0);
}

TEST(Disk, DetachesInReverse) {
  Fixture fixture;
  attach_disk(fixture.qmp, detached());
  detach_disk(fixture.qmp, "d", 1000);
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
  const std::vector<std::string> commands = fixture.commands();
  EXPECT_THAT(std::vector<std::string>(commands.end() - 7, commands.end()),
              ElementsAre("device_del", "blockdev-del", "blockdev-del", "blockdev-del",
                          "blockdev-del", "object-del", "object-del"));
  EXPECT_THROW(detach_disk(fixture.qmp, "d", 1000), Error);
}

// Every step that can fail, one after the other.
class RolledBack : public ::testing::TestWithParam<const char*> {};

TEST_P(RolledBack, LeavesNothing) {
  Fixture fixture;
  fixture.qemu.refused = {GetParam()};
  DiskRequest request = detached();
  request.device = "virtio-scsi";
  const Error error = fixture.attach_error(request);
  EXPECT_EQ(error.code(), Code::kRemote);
  EXPECT_THAT(error.message(), HasSubstr("not today"));
  EXPECT_THAT(error.message(), Not(HasSubstr("undoing")));
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(EachStep, RolledBack,
                         ::testing::Values("blockdev-add lk.d.payload", "blockdev-add lk.d.header",
                                           "blockdev-add lk.d.raw", "add-fd",
                                           "object-add lk.d.master", "object-add lk.d.key",
                                           "blockdev-add lk.d.luks", "device_add d.bus",
                                           "device_add d"));

TEST(Disk, WhatCannotBeUndoneIsNamed) {
  Fixture fixture;
  fixture.qemu.refused = {"device_add", "blockdev-del lk.d.raw"};
  const Error error = fixture.attach_error(detached());
  EXPECT_THAT(error.message(), HasSubstr("refuses device_add: not today"));
  EXPECT_THAT(error.message(), HasSubstr("undoing that failed: blockdev-del of '"));
  EXPECT_THAT(error.message(), HasSubstr("lk.d.raw"));
  EXPECT_THAT(fixture.qemu.all(), ElementsAre("nodes lk.d.raw"));
}

// Every command of an attach, answered in each way that is none.
struct MisbehaviourRow {
  const char* command;
  std::string FakeQemu::* how;
  Code code;
};
class Misbehaving : public ::testing::TestWithParam<MisbehaviourRow> {};

TEST_P(Misbehaving, EndsInTimeAndSaysWhatMayBeLeft) {
  const MisbehaviourRow& row = GetParam();
  Fixture fixture(kMachine, 300);
  fixture.qemu.*row.how = row.command;
  const Error error = fixture.attach_error(detached());
  EXPECT_EQ(error.code(), row.code) << error.message();
  // The fake did nothing that it did not answer.
  if (row.code == Code::kTimeout) {
    EXPECT_THAT(fixture.qemu.all(), IsEmpty());
  }
  if (row.code == Code::kRemote && !fixture.qemu.all().empty()) {
    EXPECT_THAT(error.message(), HasSubstr("could not be tried"));
  }
}

std::vector<MisbehaviourRow> misbehaviour() {
  std::vector<MisbehaviourRow> rows;
  for (const char* command : {"query-named-block-nodes", "qom-list", "blockdev-add", "add-fd",
                              "object-add", "device_add"}) {
    rows.push_back({command, &FakeQemu::silent_for, Code::kTimeout});
    rows.push_back({command, &FakeQemu::close_at, Code::kRemote});
    rows.push_back({command, &FakeQemu::nonsense_at, Code::kRemote});
  }
  return rows;
}
INSTANTIATE_TEST_SUITE_P(EachCommand, Misbehaving, ::testing::ValuesIn(misbehaviour()));

TEST(Disk, AnAnswerThatDoesNotComeIsUndoneToo) {
  Fixture fixture(kMachine, 1000);
  fixture.qemu.silent_for = "device_add";
  const Error error = fixture.attach_error(detached());
  EXPECT_EQ(error.code(), Code::kTimeout);
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
  EXPECT_THAT(fixture.commands(), ::testing::Contains("device_del"));
}

TEST(Disk, AConnectionThatEndsIsSaid) {
  Fixture fixture;
  fixture.qemu.close_at = "device_add";
  const Error error = fixture.attach_error(detached());
  EXPECT_EQ(error.code(), Code::kRemote);
  EXPECT_THAT(error.message(), HasSubstr("ended the connection; device_del"));
}

TEST(Disk, AGuestThatKeepsItIsWaitedForAndTheRestStays) {
  Fixture fixture;
  attach_disk(fixture.qmp, detached());
  fixture.qemu.event = "";
  const auto detach_code = [&] {
    try {
      detach_disk(fixture.qmp, "d", 200);
    } catch (const Error& error) {
      return error.code();
    }
    return Code::kInternal;
  };
  EXPECT_EQ(detach_code(), Code::kTimeout);
  fixture.qemu.event = "DEVICE_UNPLUG_GUEST_ERROR";
  EXPECT_EQ(detach_code(), Code::kBusy);
  EXPECT_THAT(fixture.qemu.all(), ::testing::Contains("nodes lk.d.luks"));
  fixture.qemu.event = "DEVICE_DELETED";
  EXPECT_EQ(detach_code(), Code::kInternal) << "the third time all goes";
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
}

TEST(Disk, AStorageDaemonExports) {
  Fixture fixture(kDaemon);
  DiskRequest request = detached();
  EXPECT_EQ(fixture.attach_error(request).code(), Code::kUsage) << "it needs a socket";
  request.export_socket = "/s";
  EXPECT_EQ(attach_disk(fixture.qmp, request), KeyTransfer::kPlain);
  EXPECT_EQ(list_disks(fixture.qmp).at(0).device, "vhost-user-blk");
  fixture.qemu.event = "BLOCK_EXPORT_DELETED";
  detach_disk(fixture.qmp, "d", 1000);
  request.device = "nbd";
  attach_disk(fixture.qmp, request);
  EXPECT_THAT(fixture.qemu.all(), AllOf(Contains("exports d"), Contains("nodes lk.d.server")));
  detach_disk(fixture.qmp, "d", 1000);
  EXPECT_THAT(fixture.qemu.all(), IsEmpty()) << "the server that was started for it, too";
}

// Where the first detach got no further than to ask for the end of the export.
struct LateExport : Fixture {
  LateExport() : Fixture(kDaemon) {
    DiskRequest request = detached();
    request.device = "nbd";
    request.export_socket = "/s";
    attach_disk(qmp, request);
    qemu.exports_end_later = true;
    EXPECT_EQ(detach_code(), Code::kTimeout);
    EXPECT_THAT(qemu.all(), AllOf(Contains("exports d"), Contains("servers "),
                                  Contains("nodes lk.d.luks"), Contains("nodes lk.d.server")));
  }
  std::optional<Code> detach_code() {
    try {
      detach_disk(qmp, "d", 100);
    } catch (const Error& error) {
      return error.code();
    }
    return std::nullopt;
  }
};

TEST(Disk, ADetachThatIsRepeatedStopsTheServerOfAnExportThatHasEnded) {
  LateExport fixture;
  EXPECT_EQ(fixture.detach_code(), Code::kTimeout) << "it is not asked for again, but waited for";
  fixture.qemu.things["exports"].clear();
  EXPECT_EQ(list_disks(fixture.qmp).at(0).device, "") << "what is left is shown";
  EXPECT_EQ(fixture.detach_code(), std::nullopt);
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
  EXPECT_EQ(std::ranges::count(fixture.commands(), "nbd-server-stop"), 1);
}

TEST(Disk, AServerThatSomebodyElseStoppedIsNoObstacle) {
  LateExport fixture;
  fixture.qemu.things["exports"].clear();
  fixture.qemu.things["servers"].clear();
  fixture.qemu.refused = {"nbd-server-stop"};
  EXPECT_EQ(fixture.detach_code(), std::nullopt);
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
}

TEST(Disk, ARepeatedDetachLeavesAServerThatOthersUseByNow) {
  LateExport fixture;
  fixture.qemu.things["exports"] = {{"other", {{"type", "nbd"}}}};
  EXPECT_EQ(fixture.detach_code(), Code::kBusy);
  EXPECT_THAT(fixture.qemu.all(), AllOf(Contains("servers "), Contains("nodes lk.d.server")));
}

// The disk "d", decrypted by a server of ours, whose socket is there.
struct ServedDisk : Fixture {
  ServedDisk() {
    qemu.things["nodes"] = {{"lk.d.nbd", {{"filename", "nbd+unix:////v?x?socket=" + socket}}}};
  }
  storage::TemporaryDirectory folder;
  std::string socket = folder.path("lukskeep-serve-x");
  storage::UniqueFd file{open(socket.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)};
};

TEST(Disk, TheEndOfTheServerIsWaitedForSinceItHoldsALock) {
  ServedDisk fixture;
  std::thread server([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    unlink(fixture.socket.c_str());
  });
  detach_disk(fixture.qmp, "d", 1000);
  EXPECT_NE(access(fixture.socket.c_str(), F_OK), 0);
  server.join();
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
}

TEST(Disk, AServerThatDoesNotEndIsNamed) {
  ServedDisk fixture;
  EXPECT_EQ(detach_disk(fixture.qmp, "d", 1000, 100), fixture.socket);
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
}

TEST(Disk, ARepeatedDetachLeavesAnExportThatIsCalledTheSame) {
  LateExport fixture;
  fixture.qemu.exports_end_later = false;
  fixture.qemu.things["exports"] = {{"d", {{"type", "nbd"}, {"node-name", "theirs"}}}};
  EXPECT_EQ(fixture.detach_code(), Code::kBusy) << "it uses the server";
  fixture.qemu.things["exports"]["d"]["type"] = "vhost-user-blk";
  EXPECT_EQ(fixture.detach_code(), std::nullopt);
  EXPECT_THAT(fixture.qemu.all(), ElementsAre("exports d"));
}

TEST(Disk, AServerThatRunsIsNeitherStartedNorStopped) {
  Fixture fixture(kDaemon, 300);
  DiskRequest request = detached();
  request.device = "nbd";
  request.export_socket = "/s";
  attach_disk(fixture.qmp, request);
  const std::set<std::string> before = fixture.qemu.all();
  // As slow as a refusal that comes when nobody waits for it any more.
  fixture.qemu.silent_for = "nbd-server-start";
  request.id = "other";
  const Error error = fixture.attach_error(request);
  EXPECT_EQ(error.code(), Code::kBusy) << error.message();
  EXPECT_THAT(error.message(), HasSubstr("runs for 'd'"));
  EXPECT_THAT(error.hint(), HasSubstr("leave --export-socket out"));
  EXPECT_THAT(fixture.commands(), Not(Contains("nbd-server-stop")));
  EXPECT_EQ(fixture.qemu.all(), before);
  fixture.qemu.things["nodes"].clear();
  fixture.qemu.things["exports"] = {{"theirs", {{"type", "nbd"}, {"node-name", "n"}}}};
  EXPECT_EQ(fixture.attach_error(request).code(), Code::kBusy);
  EXPECT_THAT(fixture.commands(), Not(Contains("nbd-server-stop")));
}

TEST(Disk, TheMarkOfAServerMakesNoDiskReadOnly) {
  Fixture fixture(kDaemon);
  DiskRequest request = detached();
  request.device = "nbd";
  request.export_socket = "/s";
  attach_disk(fixture.qmp, request);
  ASSERT_TRUE(true_member(fixture.qemu.things["nodes"]["lk.d.server"], "read-only"));
  EXPECT_FALSE(list_disks(fixture.qmp).at(0).read_only);
}

TEST(Disk, TheControllerOfADiskIsNoOtherDisk) {
  Fixture fixture;
  DiskRequest request = detached();
  request.device = "virtio-scsi";
  request.id = "data";
  attach_disk(fixture.qmp, request);
  request.device = "";
  request.id = "data-bus";
  attach_disk(fixture.qmp, request);
  detach_disk(fixture.qmp, "data", 1000);
  EXPECT_THAT(fixture.qemu.all(),
              AllOf(Contains("devices data-bus"), Contains("nodes lk.data-bus.luks"),
                    Not(Contains("devices data.bus"))));
}

TEST(Disk, AnNbdServerThatOthersUseStays) {
  Fixture fixture(kDaemon);
  fixture.qemu.event = "BLOCK_EXPORT_DELETED";
  DiskRequest request = detached();
  request.device = "nbd";
  request.export_socket = "/s";
  attach_disk(fixture.qmp, request);
  request.id = "other";
  request.export_socket = "";
  attach_disk(fixture.qmp, request);
  try {
    detach_disk(fixture.qmp, "d", 1000);
    FAIL() << "the other's clients would lose it";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kBusy);
    EXPECT_THAT(error.message(), HasSubstr("'other' uses the NBD server of 'd'"));
  }
  EXPECT_THAT(fixture.qemu.all(), AllOf(Contains("exports d"), Contains("exports other")));
  detach_disk(fixture.qmp, "other", 1000);
  detach_disk(fixture.qmp, "d", 1000);
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
}

TEST(Disk, SecretsOfAnAttachThatWasKilledGoWithTheNextOneOrTheDisk) {
  Fixture fixture;
  const std::map<std::string, Json> left = {{"lk.d.key", {}}, {"lk.d.master", {}}};
  fixture.qemu.things["objects"] = left;
  attach_disk(fixture.qmp, detached());
  EXPECT_THAT(fixture.qemu.things["objects"], IsEmpty());
  fixture.qemu.things["objects"] = left;
  detach_disk(fixture.qmp, "d", 1000);
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
}

TEST(Disk, ASecretWhoseRemovalWasNotAnsweredIsNotReportedAsLeft) {
  Fixture fixture(kMachine, 1000);
  fixture.qemu.things["objects"] = {};
  fixture.qemu.done_without_answer = "object-del lk.d.key";
  const Error error = fixture.attach_error(detached());
  EXPECT_EQ(error.code(), Code::kTimeout);
  EXPECT_THAT(error.message(), Not(HasSubstr("undoing")));
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
}

TEST(Disk, ASecretThatMayHaveArrivedBeforeTheConnectionEndedIsNamed) {
  Fixture fixture;
  fixture.qemu.close_at = "object-add";
  EXPECT_THAT(fixture.attach_error(detached()).message(),
              AllOf(HasSubstr("object-del of"), HasSubstr("lk.d.master")));
}

TEST(Disk, AGuestThatIsAtItAlreadyIsAskedAgain) {
  Fixture fixture;
  attach_disk(fixture.qmp, detached());
  fixture.qemu.refused_first = {"device_del d"};
  detach_disk(fixture.qmp, "d", 60'000);
  EXPECT_THAT(fixture.qemu.all(), IsEmpty());
}

TEST(Disk, ListsWhatIsOurs) {
  Fixture fixture;
  fixture.qemu.things["nodes"] = {{"lk.a.payload", {{"filename", "/p"}}},
                                  {"lk.a.luks", {{"read-only", true}}},
                                  {"lk.b.nbd", {{"filename", "nbd+unix:////v/x?socket=/s"}}},
                                  {"lk.c.other", Json::object()},
                                  {"lk.1bad.luks", Json::object()},
                                  {"libvirt-1-format", Json::object()}};
  fixture.qemu.things["devices"] = {{"a", {{"driver", "virtio-blk-pci"}}}};
  const std::vector<AttachedDisk> disks = list_disks(fixture.qmp);
  ASSERT_EQ(disks.size(), 2);
  EXPECT_EQ(disks[0].payload, "/p");
  EXPECT_EQ(disks[0].device, "virtio-blk-pci");
  EXPECT_TRUE(disks[0].read_only);
  EXPECT_TRUE(disks[1].via_nbd);
  EXPECT_EQ(disks[1].payload, "/v/x");
  EXPECT_EQ(disks[1].device, "");
  EXPECT_EQ(free_disk_id(fixture.qmp), "lukskeep0");
}

TEST(Disk, NamesOfDisks) {
  for (const char* good : {"a", "lukskeep0", "Data-1_x", "aaaaaaaaaaaaaaaaaaaa"}) {
    EXPECT_NO_THROW(check_disk_id(good)) << good;
  }
  for (const char* bad :
       {"", "1a", "-a", "a.b", "a b", "a\n", "aaaaaaaaaaaaaaaaaaaaa", "\xc3\xa9"}) {
    EXPECT_THROW(check_disk_id(bad), Error) << bad;
  }
}

TEST(Disk, ANameThatIsTakenIsRefused) {
  Fixture fixture;
  fixture.qemu.things["devices"] = {{"d", {{"driver", "x"}}}};
  EXPECT_EQ(fixture.attach_error(detached()).code(), Code::kExists);
  EXPECT_THAT(fixture.commands(), IsEmpty());
}

}  // namespace
}  // namespace lukskeep::vm
