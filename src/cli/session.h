// What every command needs to talk to its user: the general options, results, notes, questions.
#pragma once

#include <string>
#include <string_view>

#include <lukskeep/error.h>
#include <lukskeep/progress.h>

#include "base/json.h"
#include "keys/key_source.h"

namespace lukskeep::archive {
class Keeper;
}

namespace lukskeep::cli {

// What a command leaves behind beside its results.
struct Outcome {
  int exit_status = 0;  // of a command that found what its manual gives a status of its own
};

struct Session {
  bool json = false;
  bool quiet = false;
  bool yes = false;
  bool dry_run = false;
  bool no_archive = false;
  std::string key_manager;  // --key-manager; empty: see cli/key_manager_args.h
  bool insecure = false;    // --insecure: its certificate is not looked at
  const CancelToken* cancel = nullptr;
  // Null with --dry-run and --no-archive, and for commands that change no header.
  archive::Keeper* keeper = nullptr;
  Outcome* outcome = nullptr;
};

// Standard output, whole or Error{kIo}.
void print(std::string_view text);
// The same for JSON: one object on lines of its own. Text from headers that is no UTF-8 is
// replaced.
void print_json(const OrderedJson& json);

// The result of a command that reads: `text`, or with --json `json`.
void show(const Session& session, const OrderedJson& json, std::string_view text);

// What a command that changes something did, or would do with --dry-run: one sentence, silent with
// --quiet; `json` gets the member "dry_run".
void report(const Session& session, OrderedJson json, std::string_view text);

// `lukskeep: warning: …` on standard error.
void warn(std::string_view message);
// `lukskeep: error: …` and its hint on standard error; with `json` the object on standard output.
void print_error(const Error& error, bool json);

// Goes on with --yes, or when "YES" is typed at the terminal; else throws `refusal`, with a hint
// how to allow it. With --dry-run nothing is asked or refused, but said.
void confirm(const Session& session, std::string_view question, const Error& refusal);

// Asks on the terminal; without one throws Error{kUsage} with a hint.
keys::Prompter terminal_prompter(const Session& session);

}  // namespace lukskeep::cli
