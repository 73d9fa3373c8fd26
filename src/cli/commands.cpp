#include <array>

#include "cli/command.h"

namespace lukskeep::cli {
namespace {

constexpr std::array kCommands = {
    CommandEntry{"create", "make a new, empty volume", true, make_create},
    CommandEntry{"info", "show what a volume's header says", false, make_info},
    CommandEntry{"encrypt", "copy a plain image into a new volume", true, make_encrypt},
    CommandEntry{"decrypt", "copy a volume's plain contents out", true, make_decrypt},
    CommandEntry{"key list", "list the keyslots", false, make_key_list},
    CommandEntry{"key test", "tell whether a passphrase opens the volume", false, make_key_test},
    CommandEntry{"key add", "add a passphrase", true, make_key_add},
    CommandEntry{"key remove", "remove a passphrase or keyslot", true, make_key_remove},
    CommandEntry{"key change", "replace a passphrase by another", true, make_key_change},
    CommandEntry{"key convert", "change how a keyslot derives its key", true, make_key_convert},
    CommandEntry{"header backup", "copy the header to a file", true, make_header_backup},
    CommandEntry{"header restore", "put a copied header back", true, make_header_restore},
    CommandEntry{"token list", "list the tokens", false, make_token_list},
    CommandEntry{"token import", "store a token", true, make_token_import},
    CommandEntry{"token export", "print a token", false, make_token_export},
    CommandEntry{"token remove", "remove a token", true, make_token_remove},
    CommandEntry{"config", "show or change label, subsystem, priorities, flags", true, make_config},
    CommandEntry{"erase", "remove every keyslot: nobody opens the volume again", true, make_erase},
    CommandEntry{"bench kdf", "measure key derivation on this machine", false, make_bench_kdf},
    CommandEntry{"bench ciphers", "measure the ciphers on this machine", false, make_bench_ciphers},
    CommandEntry{"completion", "print a completion script for a shell", false, make_completion},
    CommandEntry{"help", "explain the program or a command", false, make_help},
    CommandEntry{"version", "print the version", false, make_version},
};

}  // namespace

std::span<const CommandEntry> all_commands() { return kCommands; }

Options options_of(const CommandEntry& entry, Command& command, Session& session) {
  Options options;
  command.declare(options);
  options.heading("General");
  if (entry.changes) {
    options.flag({.name = "--dry-run", .help = "say what would change, and change nothing"},
                 session.dry_run);
    options.flag({.name = "--yes", .help = "go on where the program would ask"}, session.yes);
  }
  options.flag({.name = "--json", .help = "print the result for programs"}, session.json);
  options.flag({.name = "--quiet", .help = "print no remarks and no progress"}, session.quiet);
  return options;
}

}  // namespace lukskeep::cli
