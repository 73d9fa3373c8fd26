// One command of the program: its options and what it does.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "cli/options.h"
#include "cli/session.h"

namespace lukskeep::cli {

class Command {
 public:
  virtual ~Command() = default;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  // Binds the options to members of this object. Does no work.
  virtual void declare(Options& options) = 0;
  // Throws Error.
  virtual void run(const Session& session) = 0;

 protected:
  Command() = default;
};

struct CommandEntry {
  std::string_view name;     // "create", or noun and verb: "key add"
  std::string_view summary;  // one line for the list
  bool changes = false;      // writes to a volume or file: has --yes and --dry-run
  bool archives = false;     // changes headers, which the archive keeps: has --no-archive
  std::unique_ptr<Command> (*make)() = nullptr;
};

// All of them, in the order of the help.
std::span<const CommandEntry> all_commands();

// The options of `entry` with the general ones, bound to `command` and `session`.
Options options_of(const CommandEntry& entry, Command& command, Session& session);

// One factory each; the commands themselves are in cmd_*.cpp.
std::unique_ptr<Command> make_create();
std::unique_ptr<Command> make_info();
std::unique_ptr<Command> make_encrypt();
std::unique_ptr<Command> make_decrypt();
std::unique_ptr<Command> make_serve();
std::unique_ptr<Command> make_vm_attach();
std::unique_ptr<Command> make_vm_detach();
std::unique_ptr<Command> make_vm_list();
std::unique_ptr<Command> make_vm_xml();
std::unique_ptr<Command> make_vm_define();
std::unique_ptr<Command> make_key_list();
std::unique_ptr<Command> make_key_test();
std::unique_ptr<Command> make_key_add();
std::unique_ptr<Command> make_key_remove();
std::unique_ptr<Command> make_key_change();
std::unique_ptr<Command> make_key_convert();
std::unique_ptr<Command> make_header_backup();
std::unique_ptr<Command> make_header_restore();
std::unique_ptr<Command> make_header_repair();
std::unique_ptr<Command> make_header_convert();
std::unique_ptr<Command> make_header_resize();
std::unique_ptr<Command> make_header_detach();
std::unique_ptr<Command> make_header_attach();
std::unique_ptr<Command> make_header_check();
std::unique_ptr<Command> make_archive_init();
std::unique_ptr<Command> make_archive_add();
std::unique_ptr<Command> make_archive_list();
std::unique_ptr<Command> make_archive_show();
std::unique_ptr<Command> make_archive_diff();
std::unique_ptr<Command> make_archive_export();
std::unique_ptr<Command> make_archive_import();
std::unique_ptr<Command> make_archive_verify();
std::unique_ptr<Command> make_archive_prune();
std::unique_ptr<Command> make_archive_status();
std::unique_ptr<Command> make_archive_scan();
std::unique_ptr<Command> make_archive_drill();
std::unique_ptr<Command> make_archive_mirror();
std::unique_ptr<Command> make_archive_sync();
std::unique_ptr<Command> make_archive_watch();
std::unique_ptr<Command> make_seal();
std::unique_ptr<Command> make_unseal();
std::unique_ptr<Command> make_token_list();
std::unique_ptr<Command> make_token_import();
std::unique_ptr<Command> make_token_export();
std::unique_ptr<Command> make_token_remove();
std::unique_ptr<Command> make_bind();
std::unique_ptr<Command> make_unbind();
std::unique_ptr<Command> make_bindings();
std::unique_ptr<Command> make_rebind();
std::unique_ptr<Command> make_rekey();
std::unique_ptr<Command> make_edit();
std::unique_ptr<Command> make_top_up();
std::unique_ptr<Command> make_report();
std::unique_ptr<Command> make_passphrase();
std::unique_ptr<Command> make_unlock();
std::unique_ptr<Command> make_recover_request();
std::unique_ptr<Command> make_recover_answer();
std::unique_ptr<Command> make_recover_finish();
std::unique_ptr<Command> make_policy_show();
std::unique_ptr<Command> make_policy_check();
std::unique_ptr<Command> make_inspect();
std::unique_ptr<Command> make_tang_serve();
std::unique_ptr<Command> make_tang_keygen();
std::unique_ptr<Command> make_tang_rotate();
std::unique_ptr<Command> make_tang_keys();
std::unique_ptr<Command> make_tang_hide();
std::unique_ptr<Command> make_tang_unhide();
std::unique_ptr<Command> make_tang_delete();
std::unique_ptr<Command> make_tang_usage();
std::unique_ptr<Command> make_tang_backup();
std::unique_ptr<Command> make_tang_restore();
std::unique_ptr<Command> make_config();
std::unique_ptr<Command> make_erase();
std::unique_ptr<Command> make_keystore_init();
std::unique_ptr<Command> make_keystore_store();
std::unique_ptr<Command> make_keystore_get();
std::unique_ptr<Command> make_keystore_list();
std::unique_ptr<Command> make_keystore_show();
std::unique_ptr<Command> make_keystore_delete();
std::unique_ptr<Command> make_keystore_consumers();
std::unique_ptr<Command> make_keystore_metadata();
std::unique_ptr<Command> make_keystore_access();
std::unique_ptr<Command> make_keystore_copy();
std::unique_ptr<Command> make_keystore_reconcile();
std::unique_ptr<Command> make_keystore_resolve();
std::unique_ptr<Command> make_keystore_rewrap();
std::unique_ptr<Command> make_bench_kdf();
std::unique_ptr<Command> make_bench_ciphers();
std::unique_ptr<Command> make_completion();
std::unique_ptr<Command> make_help();
std::unique_ptr<Command> make_version();

}  // namespace lukskeep::cli
