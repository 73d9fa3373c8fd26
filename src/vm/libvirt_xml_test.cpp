#include "vm/libvirt_xml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

namespace lukskeep::vm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(LibvirtXml, ADiskHasItsEncryptionInsideItsSource) {
  EXPECT_EQ(disk_xml({.path = "/v/a.luks",
                      .format = "luks",
                      .engine = "qemu",
                      .secret_uuid = "0a81f5b2-8403-4b23-88d6-21ccc2f80d6f",
                      .serial = "x"}),
            "<disk type='file' device='disk'>\n"
            "  <driver name='qemu' type='raw'/>\n"
            "  <source file='/v/a.luks'>\n"
            "    <encryption format='luks' engine='qemu'>\n"
            "      <secret type='passphrase' uuid='0a81f5b2-8403-4b23-88d6-21ccc2f80d6f'/>\n"
            "    </encryption>\n"
            "  </source>\n"
            "  <target dev='vdb' bus='virtio'/>\n"
            "  <serial>x</serial>\n"
            "</disk>\n");
}

TEST(LibvirtXml, AnImageInCeph) {
  const std::string xml = disk_xml({.rbd_image = "pool/image",
                                    .rbd_snapshot = "s",
                                    .rbd_hosts = {"a", "b:6789", "[::1]:3300", "[fe80::2]", "::3"},
                                    .rbd_user = "admin",
                                    .rbd_user_secret = "u",
                                    .format = "luks2",
                                    .engine = "librbd",
                                    .secret_uuid = "p",
                                    .read_only = true});
  EXPECT_THAT(xml, HasSubstr("<source protocol='rbd' name='pool/image'>"));
  EXPECT_THAT(xml, HasSubstr("<host name='a'/>"));
  EXPECT_THAT(xml, HasSubstr("<host name='b' port='6789'/>"));
  EXPECT_THAT(xml, HasSubstr("<host name='::1' port='3300'/>"));
  EXPECT_THAT(xml, HasSubstr("<host name='fe80::2'/>"));
  EXPECT_THAT(xml, HasSubstr("<host name='::3'/>"));
  EXPECT_THAT(xml, HasSubstr("<snapshot name='s'/>"));
  EXPECT_THAT(xml, HasSubstr("<auth username='admin'>\n      <secret type='ceph' uuid='u'/>"));
  EXPECT_THAT(xml, HasSubstr("<encryption format='luks2' engine='librbd'>"));
  EXPECT_THAT(xml, HasSubstr("<readonly/>"));
}

TEST(LibvirtXml, AnExportNeedsNoSecret) {
  const std::string xml = disk_xml({.nbd_socket = "/run/s", .nbd_export = "e"});
  EXPECT_THAT(xml, HasSubstr("<source protocol='nbd' name='e'>"));
  EXPECT_THAT(xml, HasSubstr("<host transport='unix' socket='/run/s'/>"));
  EXPECT_THAT(xml, Not(HasSubstr("encryption")));
}

TEST(LibvirtXml, NamesAreEscaped) {
  const std::string nasty = "/a'/><b>&\"\n\xc3\xa9";
  EXPECT_THAT(disk_xml({.path = nasty}),
              HasSubstr("<source file='/a&#39;/&#62;&#60;b&#62;&#38;&#34;&#10;\xc3\xa9'/>"));
  EXPECT_THAT(secret_xml({.uuid = "u", .usage = nasty}),
              HasSubstr("<volume>/a&#39;/&#62;&#60;b&#62;&#38;&#34;&#10;\xc3\xa9</volume>"));
  // In JSON first, then in XML.
  EXPECT_THAT(commandline_xml({.id = "d", .payload = "/p\"", .header = "/h", .key_file = "/k"}),
              HasSubstr("&#34;filename&#34;:&#34;/p\\&#34;&#34;"));
}

TEST(LibvirtXml, BlockDevicesHaveADriverOfTheirOwn) {
  const auto xml = [](bool payload_device, bool header_device) {
    return commandline_xml({.id = "d",
                            .payload = "/p",
                            .header = "/h",
                            .payload_device = payload_device,
                            .header_device = header_device,
                            .key_file = "/k"});
  };
  const char* const payload = "&#34;host_device&#34;,&#34;filename&#34;:&#34;/p&#34;";
  const char* const header = "&#34;host_device&#34;,&#34;filename&#34;:&#34;/h&#34;";
  EXPECT_THAT(xml(false, false), Not(HasSubstr("host_device")));
  EXPECT_THAT(xml(true, false), AllOf(HasSubstr(payload), Not(HasSubstr(header))));
  EXPECT_THAT(xml(false, true), AllOf(HasSubstr(header), Not(HasSubstr(payload))));
}

TEST(LibvirtXml, WhatXmlCannotHoldIsRefused) {
  for (const char* name : {"\x01", "\x1b[0m", "\xff", "\xed\xa0\x80", "\xef\xbf\xbf"}) {
    EXPECT_THROW(disk_xml({.path = name}), Error) << name;
    EXPECT_THROW(secret_xml({.uuid = "u", .usage = name}), Error) << name;
    EXPECT_THROW(commandline_xml({.id = "d", .payload = name}), Error) << name;
  }
}

TEST(LibvirtXml, SecretsStayInMemoryUnlessAsked) {
  EXPECT_THAT(secret_xml({.uuid = "u", .usage = "v"}),
              HasSubstr("<secret ephemeral='yes' private='yes'>"));
  EXPECT_THAT(secret_xml({.uuid = "u", .usage = "v", .persistent = true}),
              HasSubstr("<secret ephemeral='no' private='yes'>"));
}

}  // namespace
}  // namespace lukskeep::vm
