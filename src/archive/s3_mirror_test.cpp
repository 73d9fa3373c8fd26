#include "archive/s3_mirror.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

namespace lukskeep::archive {
namespace {

struct BucketCase {
  std::string uri;
  std::string endpoint;  // empty: no bucket
  std::string bucket;
  std::string prefix;
};

TEST(S3Mirror, ParsesBuckets) {
  const std::vector<BucketCase> cases = {
      {"s3+https://s3.example.org/bucket", "https://s3.example.org", "bucket", ""},
      {"s3+http://127.0.0.1:7480/b-1.x_y", "http://127.0.0.1:7480", "b-1.x_y", ""},
      {"s3+https://[::1]:7480/bucket/a/b", "https://[::1]:7480", "bucket", "a/b/"},
      {"s3+https://host/bucket/", "https://host", "bucket", ""},
      {"s3+https://host/bucket//a b%/", "https://host", "bucket", "a b%/"},
      {"s3+https://host/" + std::string(63, 'b') + "/p", "https://host", std::string(63, 'b'),
       "p/"},
      {"s3+https://host/bucket/" + std::string(512, 'p'), "https://host", "bucket",
       std::string(512, 'p') + "/"},
      {"s3+https://host/bucket/" + std::string(513, 'p'), "", "", ""},
      {"s3+https://host/" + std::string(64, 'b'), "", "", ""},
      {"s3+https://host", "", "", ""},
      {"s3+https://host/", "", "", ""},
      {"s3+https:///bucket", "", "", ""},
      {"s3+https://host/ab", "", "", ""},
      {"s3+https://host/Bucket", "", "", ""},
      {"s3+https://host/bu%20cket", "", "", ""},
      {"s3+https://user:secret@host/bucket", "", "", ""},
      {"s3+https://host?q/bucket", "", "", ""},
      {"s3+https://host/bucket?versions", "", "", ""},
      {"s3+https://host/bucket/a#b", "", "", ""},
  };
  for (const BucketCase& each : cases) {
    SCOPED_TRACE(each.uri);
    try {
      const BucketLocation location = parse_bucket(each.uri);
      EXPECT_EQ(location.endpoint, each.endpoint);
      EXPECT_EQ(location.bucket, each.bucket);
      EXPECT_EQ(location.prefix, each.prefix);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalidArgument);
      EXPECT_TRUE(each.endpoint.empty()) << error.message();
    }
  }
}

struct ListCase {
  const char* name;
  std::string xml;
  bool good;
  std::vector<std::string> keys;
  std::string continuation;
};

std::string list_of(const std::string& inside) {
  return "<ListBucketResult>" + inside + "</ListBucketResult>";
}

std::string key(const std::string& text) { return "<Contents><Key>" + text + "</Key></Contents>"; }

std::vector<ListCase> list_cases() {
  std::string many;
  for (int number = 0; number < 5000; ++number) many += key("k");  // in several pieces
  std::string laughs = "<!DOCTYPE l [<!ENTITY a \"" + std::string(100, 'h') + "\">";
  for (char c = 'b'; c < 'm'; ++c) {
    laughs += std::string("<!ENTITY ") + c + " \"";
    for (int number = 0; number < 10; ++number) laughs += std::string("&") + char(c - 1) + ";";
    laughs += "\">";
  }
  return {
      {"none", list_of(""), true, {}, ""},
      {"Amazon's",
       "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://"
       "s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><IsTruncated>true</IsTruncated>"
       "<NextContinuationToken>1/x=+&amp;</NextContinuationToken>" +
           key("a") + key("b &lt;&#65;") + "</ListBucketResult>",
       true,
       {"a", "b <A"},
       "1/x=+&"},
      {"name space",
       "<s:ListBucketResult xmlns:s='x'><s:Contents><s:Key>a</s:Key></s:Contents>"
       "</s:ListBucketResult>",
       true,
       {"a"},
       ""},
      {"keys elsewhere",
       list_of("<Key>a</Key><CommonPrefixes><Key>b</Key></CommonPrefixes>"),
       true,
       {},
       ""},
      {"long key", list_of(key(std::string(4096, 'k'))), true, {std::string(4096, 'k')}, ""},
      {"key too long", list_of(key(std::string(4097, 'k'))), false, {}, ""},
      {"many", list_of(many), true, std::vector<std::string>(5000, "k"), ""},
      {"deep",
       list_of(std::string("<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>")),
       false,
       {},
       ""},
      {"empty", "", false, {}, ""},
      {"error", "<Error><Code>NoSuchBucket</Code></Error>", false, {}, ""},
      {"list inside", "<a>" + list_of(key("a")) + "</a>", false, {}, ""},
      {"cut", "<ListBucketResult><Contents>", false, {}, ""},
      {"more behind", list_of(key("a")) + "<x/>", false, {}, ""},
      {"entities", laughs + "]>" + list_of(key("&l;")), false, {}, ""},
      {"document type", "<!DOCTYPE x>" + list_of(key("a")), false, {}, ""},
      {"unknown entity", list_of(key("&nbsp;")), false, {}, ""},
      {"no UTF-8", list_of(key("\xff")), false, {}, ""},
  };
}

TEST(S3Mirror, ParsesLists) {
  for (const ListCase& each : list_cases()) {
    SCOPED_TRACE(each.name);
    try {
      const ListedObjects page = parse_object_list(as_byte_view(each.xml), "'the server'");
      EXPECT_TRUE(each.good);
      EXPECT_EQ(page.keys, each.keys);
      EXPECT_EQ(page.continuation, each.continuation);
    } catch (const Error& error) {
      EXPECT_FALSE(each.good) << error.message();
      EXPECT_EQ(error.code(), Code::kRemote);
      EXPECT_NE(error.message().find("'the server'"), std::string::npos);
    }
  }
}

TEST(Mirror, KnowsNamesOfSnapshots) {
  const std::string uuid = "snapshots/0aef41e5-da2b-4abb-ad38-683474637ee5/";
  for (const std::string& good : {uuid + "1-a.snapshot", uuid + "1-a-imported.snapshot",
                                  "snapshots/a/" + std::string(256 - 12 - 9, 'x') + ".snapshot"}) {
    EXPECT_TRUE(is_snapshot_name(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string(".snapshot"), std::string("a.snapshot"),
        "/" + uuid + "a.snapshot", std::string("snapshots/a.snapshot"),
        std::string("snapshots/../a.snapshot"), std::string("snapshots/./a.snapshot"),
        std::string("snapshots/a/b/c.snapshot"), std::string("snapshots/a/.snapshot"),
        std::string("snapshots/a/.b.snapshot"), std::string("../a/b.snapshot"),
        std::string("other/a/b.snapshot"), uuid + "a.snapshot/", uuid + "a.snapshots",
        "snapshots/a/" + std::string(257 - 12 - 9, 'x') + ".snapshot"}) {
    EXPECT_FALSE(is_snapshot_name(bad)) << bad;
  }
}

}  // namespace
}  // namespace lukskeep::archive
