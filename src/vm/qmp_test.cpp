#include "vm/qmp.h"

#include <array>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "vm/scripted_monitor_test_tools.h"

namespace lukskeep::vm {
namespace {

using ::testing::HasSubstr;

constexpr Qmp::Settings kShort{.timeout_ms = 300};
// Where the answer comes, however slow the machine.
constexpr Qmp::Settings kPatient{.timeout_ms = 60'000};

struct Failure {
  Code code;
  std::string message;
};

// What happens to a client that connects and asks for "stop".
std::optional<Failure> failure_with(const ScriptedMonitor::Answer& answer,
                                    const Qmp::Settings& settings) {
  ScriptedMonitor monitor(answer);
  try {
    Qmp qmp = Qmp::connect(monitor.path(), settings);
    qmp.execute("stop");
  } catch (const Error& error) {
    return Failure{error.code(), error.message()};
  }
  return std::nullopt;
}

TEST(Qmp, ConnectsAndAsks) {
  ScriptedMonitor monitor(
      like_qemu({"stop"}, [](const std::string& line) { return reply_to(line, {{"x", 1}}); }));
  Qmp qmp = Qmp::connect(monitor.path(), kPatient);
  EXPECT_EQ(qmp.version().major, 10);
  EXPECT_EQ(qmp.version().package, "p");
  EXPECT_TRUE(qmp.has("stop"));
  EXPECT_FALSE(qmp.has("cont"));
  EXPECT_EQ(qmp.execute("stop", {{"a", "\"\n"}}), (Json{{"x", 1}}));
  EXPECT_EQ(monitor.asked().at(0)["arguments"], (Json{{"a", "\"\n"}}));
  EXPECT_EQ(qmp.peer_uid(), getuid());
}

TEST(Qmp, SecretArgumentsArriveWhole) {
  ScriptedMonitor monitor(
      like_qemu({}, [](const std::string& line) { return reply_to(line, Json::object()); }));
  Qmp qmp = Qmp::connect(monitor.path(), kPatient);
  qmp.execute_secret("object-add", SecretBytes(as_byte_view(R"({"data":"x"})")));
  EXPECT_EQ(monitor.asked().at(0)["arguments"], (Json{{"data", "x"}}));
}

TEST(Qmp, EventsBetweenAnswersAreKept) {
  ScriptedMonitor monitor(like_qemu({}, [](const std::string& line) {
    return R"({"event": "DEVICE_DELETED", "data": {"device": "a", "path": "/x"}})"
           "\r\n"
           R"({"event": "BLOCK_EXPORT_DELETED", "data": {"id": "e"}})"
           "\n" +
           reply_to(line, Json::object());
  }));
  Qmp qmp = Qmp::connect(monitor.path(), kPatient);
  qmp.execute("stop");
  const auto of = [](std::string name, std::string subject) {
    return [=](const QmpEvent& event) { return event.name == name && event.subject == subject; };
  };
  EXPECT_TRUE(qmp.wait_for_event(of("BLOCK_EXPORT_DELETED", "e"), 0));
  EXPECT_TRUE(qmp.wait_for_event(of("DEVICE_DELETED", "a"), 0));
  EXPECT_FALSE(qmp.wait_for_event(of("DEVICE_DELETED", "a"), 100)) << "one event is told once";
}

TEST(Qmp, DescriptorsGoWithACommand) {
  ScriptedMonitor monitor(
      like_qemu({}, [](const std::string& line) { return reply_to(line, Json::object()); }));
  Qmp qmp = Qmp::connect(monitor.path(), kPatient);
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const storage::UniqueFd read_end(ends[0]);
  storage::UniqueFd write_end(ends[1]);
  qmp.execute("getfd", {{"fdname", "f"}}, read_end.get());
  ASSERT_EQ(write(write_end.get(), "hello", 5), 5);
  char got[5];
  ASSERT_EQ(read(monitor.received_fd(), got, 5), 5);
  EXPECT_EQ(std::string(got, 5), "hello");
}

TEST(Qmp, AnswersOfCommandsThatWereGivenUpArePassedOver) {
  ScriptedMonitor monitor(like_qemu({}, [](const std::string& line) {
    const Json asked = Json::parse(line);
    if (asked["execute"] == "slow") return std::string();
    return Json{{"return", "late"}, {"id", asked["id"].get<int>() - 1}}.dump() + "\n" +
           reply_to(line, "fresh");
  }));
  Qmp qmp = Qmp::connect(monitor.path(), kShort);
  EXPECT_THROW(qmp.execute("slow"), Error);
  EXPECT_TRUE(qmp.usable());
  EXPECT_EQ(qmp.execute("quick"), "fresh");
}

TEST(Qmp, ASignalEndsTheWaiting) {
  ScriptedMonitor monitor([](const std::string&) { return std::string(); });
  CancelToken cancel;
  cancel.cancel();
  try {
    Qmp::connect(monitor.path(), {.timeout_ms = 60'000, .cancel = &cancel});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInterrupted);
  }
}

struct HostileRow {
  const char* name;
  ScriptedMonitor::Answer answer;
  Code code;
  const char* says;
};

ScriptedMonitor::Answer after_greeting(const std::string& text) {
  return like_qemu({}, [text](const std::string&) { return text; });
}
ScriptedMonitor::Answer greets(const std::string& text) {
  return [text](const std::string&) { return text; };
}

std::string many_events(int count) {
  std::string many;
  for (int i = 0; i < count; ++i) many += "{\"event\":\"E\"}\n";
  return many;
}

class HostileMonitor : public ::testing::TestWithParam<HostileRow> {};

TEST_P(HostileMonitor, IsNamed) {
  const bool slow = GetParam().code == Code::kTimeout;
  const std::optional<Failure> failure = failure_with(GetParam().answer, slow ? kShort : kPatient);
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->code, GetParam().code) << failure->message;
  EXPECT_THAT(failure->message, HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileMonitor,
    ::testing::Values(
        HostileRow{"Silent", greets(""), Code::kTimeout, "did not answer within 0.3 s"},
        HostileRow{"Closes", greets("close"), Code::kRemote, "ended the connection"},
        HostileRow{"Http", greets("HTTP/1.1 400 Bad Request\r\n"), Code::kRemote, "no JSON"},
        HostileRow{"NoObject", greets("[1]\n"), Code::kRemote, "no JSON object"},
        HostileRow{"NoGreeting", greets("{\"x\":1}\n"), Code::kRemote, "no greeting"},
        HostileRow{"GreetingOfNothing", greets("{\"QMP\":7}\n"), Code::kRemote, "no greeting"},
        HostileRow{"NoVersion", greets("{\"QMP\":{}}\n"), Code::kRemote, "no version"},
        HostileRow{"VersionIsText", greets("{\"QMP\":{\"version\":\"9\"}}\n"), Code::kRemote,
                   "no version"},
        HostileRow{"TwiceTheSameMember", greets("{\"QMP\":{},\"QMP\":{}}\n"), Code::kRemote,
                   "no JSON"},
        HostileRow{"DeepNesting", greets(std::string(100'000, '[') + "\n"), Code::kRemote,
                   "no JSON"},
        HostileRow{"EndlessLine", greets(std::string(9 << 20, 'x')), Code::kRemote, "no end"},
        HostileRow{"OnlyEvents", greets(kGreeting + many_events(20'000)), Code::kRemote,
                   "gives no answer"},
        HostileRow{"HangsLater", after_greeting(""), Code::kTimeout, "did not answer"},
        HostileRow{"ClosesLater", after_greeting("close"), Code::kRemote, "ended the connection"},
        HostileRow{"ClosesInTheGreeting", greets("{\"QMP\": close"), Code::kRemote,
                   "ended the connection"},
        HostileRow{"ClosesInTheAnswer", after_greeting("{\"return\": {close"), Code::kRemote,
                   "ended the connection"},
        HostileRow{"DripsWithoutEnd", after_greeting("drip" + std::string(100'000, ' ')),
                   Code::kTimeout, "did not answer"},
        HostileRow{"EventsWithoutEndOrAnswer", after_greeting("drip" + many_events(1000)),
                   Code::kTimeout, "did not answer"},
        HostileRow{"AnswersInsideOneAnother",
                   after_greeting("{\"return\":{\"return\":{},\"id\":3}}\n"), Code::kRemote,
                   "belongs to no command"},
        HostileRow{"HalfAnAnswer", after_greeting("{\"return\":"), Code::kTimeout,
                   "did not answer"},
        HostileRow{"AnswerToNothing", after_greeting("{\"return\":{}}\n"), Code::kRemote,
                   "belongs to no command"},
        HostileRow{"AnswerFromTheFuture", after_greeting("{\"return\":{},\"id\":99}\n"),
                   Code::kRemote, "belongs to no command"},
        HostileRow{"NoResult", after_greeting("{\"id\":3}\n"), Code::kRemote, "its answer is none"},
        HostileRow{"ErrorOfNothing", after_greeting("{\"error\":1}\n"), Code::kRemote,
                   "refuses stop: "},
        HostileRow{"NotUtf8", after_greeting("{\"return\":\"\xff\"}\n"), Code::kRemote, "no JSON"},
        HostileRow{"LacksTheCommand",
                   like_qemu({},
                             [](const std::string& line) {
                               return refusal_of(line,
                                                 "The command stop has not "
                                                 "been found",
                                                 "CommandNotFound");
                             }),
                   Code::kUnsupported, "refuses stop: The command stop"},
        HostileRow{"LacksTheDevice",
                   like_qemu({},
                             [](const std::string& line) {
                               return refusal_of(line, "\x1b[31mno device", "DeviceNotFound");
                             }),
                   Code::kNotFound, "\\x1b[31mno device"},
        HostileRow{"CommandsAreNoList",
                   [](const std::string& line) {
                     return line.empty() ? std::string(kGreeting) : reply_to(line, 5);
                   },
                   Code::kRemote, "list of commands"}),
    [](const auto& row) { return std::string(row.param.name); });

TEST(Qmp, SocketsThatAreNone) {
  const storage::TemporaryDirectory folder;
  const auto code_at = [](const std::string& path) {
    try {
      Qmp::connect(path, kShort);
    } catch (const Error& error) {
      return error.code();
    }
    return Code::kInternal;
  };
  EXPECT_EQ(code_at(folder.path("none")), Code::kNotFound);
  EXPECT_EQ(code_at(""), Code::kUsage);
  EXPECT_EQ(code_at(std::string(200, 'x')), Code::kUsage);
  const storage::UniqueFd file(open(folder.path("file").c_str(), O_CREAT | O_RDWR, 0600));
  EXPECT_EQ(code_at(folder.path("file")), Code::kRemote);
}

TEST(Qmp, AMonitorThatTakesNoConnectionIsNotWaitedForWithoutEnd) {
  const storage::TemporaryDirectory folder;
  const std::string path = folder.path("q");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const auto* const where = reinterpret_cast<const sockaddr*>(&address);
  const storage::UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(listener.get(), where, sizeof address), 0);
  ASSERT_EQ(listen(listener.get(), 0), 0);
  const storage::UniqueFd first(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(first.get(), where, sizeof address), 0) << "the queue has one place";
  try {
    Qmp::connect(path, kShort);
    FAIL() << "nobody took it";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kTimeout);
    EXPECT_THAT(error.message(), HasSubstr("takes no connection"));
  }
}

TEST(Qmp, NamesThatAreNoUtf8AreRefusedHere) {
  ScriptedMonitor monitor(
      like_qemu({}, [](const std::string& line) { return reply_to(line, Json::object()); }));
  Qmp qmp = Qmp::connect(monitor.path(), kPatient);
  EXPECT_THROW(qmp.execute("x", {{"filename", "\xff"}}), Error);
}

}  // namespace
}  // namespace lukskeep::vm
