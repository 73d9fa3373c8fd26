// clevis-luks-report.
#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/parallel_for.h"
#include "cli/compat_clevis.h"
#include "cli/compat_io.h"
#include "nbde/advertisement.h"
#include "nbde/tang_client.h"

namespace lukskeep::cli {
namespace {

constexpr int kUsage = 1;

struct Rotated {
  std::vector<std::string> thumbprints;
  bool unsure = false;
};

void collect_tang(const nbde::SealedPin& pin, std::vector<const nbde::SealedPin*>& found) {
  for (const nbde::SealedPin& share : pin.shares) collect_tang(share, found);
  if (pin.pin == "tang" && pin.state != nbde::ShareState::kPending) found.push_back(&pin);
}

// Keys that a server advertised when it was sealed to, and does not advertise any more.
std::vector<std::string> rotated_keys(const nbde::SealedPin& pin, const nbde::PinContext& context,
                                      nbde::Deadline deadline) {
  if (pin.problem) throw Error(*pin.problem);
  const nbde::FetchedAdvertisement fetched =
      nbde::fetch_advertisement({.url = pin.url}, context, deadline);
  if (!fetched.advertisement) throw fetched.down.value_or(Error(Code::kRemote, "it gave none"));
  std::vector<std::string> rotated;
  for (const nbde::EcKey& key : nbde::parse_key_set(pin.advertisement, "the keys of the binding")) {
    std::string thumbprint = nbde::thumbprint(key.point);
    if (nbde::find_key(fetched.advertisement->keys, thumbprint) == nullptr) {
      rotated.push_back(std::move(thumbprint));
    }
  }
  return rotated;
}

// All servers at once, within the time that there is for all of them; told in order.
Rotated compare(const nbde::SealedPin& pin, const nbde::PinContext& context) {
  std::vector<const nbde::SealedPin*> servers;
  collect_tang(pin, servers);
  const nbde::Deadline deadline = nbde::deadline_of(context);
  std::vector<std::vector<std::string>> found(servers.size());
  std::vector<std::optional<Error>> failed(servers.size());
  parallel_for(servers.size(), static_cast<unsigned>(servers.size()), [&](std::size_t i) {
    try {
      found[i] = rotated_keys(*servers[i], context, deadline);
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted || error.code() == Code::kOutOfMemory) throw;
      failed[i] = error;
    }
  });
  Rotated rotated;
  for (std::size_t i = 0; i < servers.size(); ++i) {
    std::ranges::move(found[i], std::back_inserter(rotated.thumbprints));
    const std::optional<Error>& error = failed[i];
    if (!error) continue;
    if (!servers[i]->problem) {
      say(fmt::format("Unable to fetch advertisement ({}/adv)", printable(servers[i]->url, 128)));
    }
    print_error(*error, false);
    rotated.unsure = true;
  }
  return rotated;
}

std::optional<Rotated> look(const CompatCall& call, const ShortOptions& options) {
  const auto file = try_open(nullptr, options.value('d'), "{} is not a supported LUKS device!");
  if (!file) return std::nullopt;
  const auto slot = parse_slot(options.value('s'), slots_of(*file));
  const auto binding = slot && has_records(*file) ? binding_of_slot(*file, *slot) : std::nullopt;
  if (!binding) {
    say(fmt::format("Cannot load data from {} slot:{}. No token found!",
                    printable(options.value('d'), 256), printable(options.value('s'))));
    return std::nullopt;
  }
  // Compared are keys of which the binding has its own list: nobody is trusted here.
  const nbde::PinContext context = compat_context(call.session, Trust::kTake);
  return compare(nbde::describe(nbde::sealed_of(*binding), "the binding"), context);
}

}  // namespace

int compat_luks_report(const CompatCall& call) {
  constexpr std::string_view text = "clevis luks report [-q] [-r] -d DEV -s SLOT";
  const ShortOptions options = parse_short_options(call.arguments, "hd:s:rq");
  if (options.has('h') && !options.wrong) return compat_usage(text, 0);
  if (options.wrong) return compat_usage(text, kUsage);
  const std::string device = options.value('d');
  const std::string slot = options.value('s');
  if (device.empty()) return compat_missing("a device", text, kUsage);
  if (slot.empty()) return compat_missing("a slot", text, kUsage);
  const auto rotated = look(call, options);
  if (!rotated) return kCompatFailure;
  if (rotated->thumbprints.empty()) {
    if (!rotated->unsure) return 0;
    say("Unable to verify whether there are rotated keys");
    return kCompatFailure;
  }
  print("The following keys are not in the current advertisement and were probably rotated:\n");
  for (const std::string& thumbprint : rotated->thumbprints) {
    print(fmt::format("  {}\n", thumbprint));
  }
  const std::string question = fmt::format(
      "Do you want to regenerate the binding with \"clevis luks regen -q -d {} -s {}\"? [ynYN] ",
      printable(device, 256), printable(slot));
  if (!options.has('r') && (options.has('q') || !read_yes(question, *call.session.cancel))) {
    return kCompatFailure;
  }
  CompatCall regen{.name = "clevis-luks-regen",
                   .called = "clevis-luks-regen",
                   .arguments = {"-q", "-d", device, "-s", slot},
                   .session = call.session};
  return compat_luks_regen(regen);
}

}  // namespace lukskeep::cli
