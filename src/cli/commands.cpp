#include <array>

#include "cli/cmd_image.h"
#include "cli/command.h"
#include "cli/key_manager_args.h"
#include "cli/volume_access.h"

namespace lukskeep::cli {
namespace {

constexpr std::array kCommands = {
    CommandEntry{"create", "make a new, empty volume", true, true, make_create},
    CommandEntry{"info", "show what a volume's header says", false, false, make_info},
    CommandEntry{"encrypt", "copy a plain image into a new volume", true, true, make_encrypt},
    CommandEntry{"decrypt", "copy a volume's plain contents out", true, false, make_decrypt},
    CommandEntry{"serve", "serve volumes to NBD clients", false, false, make_serve},
    CommandEntry{"vm attach", "give a running virtual machine a volume as a disk", false, false,
                 make_vm_attach},
    CommandEntry{"vm detach", "take a disk from a running virtual machine", false, false,
                 make_vm_detach},
    CommandEntry{"vm list", "list the disks given to a virtual machine", false, false,
                 make_vm_list},
    CommandEntry{"vm xml", "print a volume as libvirt's XML", false, false, make_vm_xml},
    CommandEntry{"vm define", "give libvirt a volume's passphrase", false, false, make_vm_define},
    CommandEntry{"key list", "list the keyslots", false, false, make_key_list},
    CommandEntry{"key test", "tell whether a passphrase opens the volume", false, false,
                 make_key_test},
    CommandEntry{"key add", "add a passphrase", true, true, make_key_add},
    CommandEntry{"key remove", "remove a passphrase or keyslot", true, true, make_key_remove},
    CommandEntry{"key change", "replace a passphrase by another", true, true, make_key_change},
    CommandEntry{"key convert", "change how a keyslot derives its key", true, true,
                 make_key_convert},
    CommandEntry{"header backup", "copy the header to a file", true, false, make_header_backup},
    CommandEntry{"header restore", "put a copied header back", true, true, make_header_restore},
    CommandEntry{"header repair", "mend a damaged header", true, true, make_header_repair},
    CommandEntry{"header convert", "make a LUKS1 header LUKS2, or the reverse", true, true,
                 make_header_convert},
    CommandEntry{"header resize", "change the sizes of metadata and keyslots area", true, true,
                 make_header_resize},
    CommandEntry{"header detach", "move the header out of the volume into a file", true, true,
                 make_header_detach},
    CommandEntry{"header attach", "move a detached header into its volume", true, true,
                 make_header_attach},
    CommandEntry{"header check", "look for damage and weakness in a header", false, false,
                 make_header_check},
    CommandEntry{"archive init", "make an archive of headers", true, false, make_archive_init},
    CommandEntry{"archive add", "archive a header now", true, false, make_archive_add},
    CommandEntry{"archive list", "list the snapshots", false, false, make_archive_list},
    CommandEntry{"archive show", "show what is known of a snapshot", false, false,
                 make_archive_show},
    CommandEntry{"archive diff", "compare two snapshots", false, false, make_archive_diff},
    CommandEntry{"archive export", "write a snapshot's header to a file", true, false,
                 make_archive_export},
    CommandEntry{"archive import", "take a snapshot or header backup in", true, false,
                 make_archive_import},
    CommandEntry{"archive verify", "read every snapshot and check it", false, false,
                 make_archive_verify},
    CommandEntry{"archive prune", "remove snapshots that are no longer wanted", true, false,
                 make_archive_prune},
    CommandEntry{"archive status", "tell which volumes have a current snapshot", false, false,
                 make_archive_status},
    CommandEntry{"archive scan", "find the volumes of this machine", true, false,
                 make_archive_scan},
    CommandEntry{"archive drill", "prove that a snapshot opens a volume", false, false,
                 make_archive_drill},
    CommandEntry{"archive mirror", "keep a copy of the archive elsewhere", true, false,
                 make_archive_mirror},
    CommandEntry{"archive sync", "bring mirrors up to date, or fetch from one", true, false,
                 make_archive_sync},
    CommandEntry{"archive watch", "archive headers whenever they changed", false, false,
                 make_archive_watch},
    CommandEntry{"seal", "seal bytes to servers and TPMs", false, false, make_seal},
    CommandEntry{"unseal", "open what was sealed", false, false, make_unseal},
    CommandEntry{"token list", "list the tokens", false, false, make_token_list},
    CommandEntry{"token import", "store a token", true, true, make_token_import},
    CommandEntry{"token export", "print a token", false, false, make_token_export},
    CommandEntry{"token remove", "remove a token", true, true, make_token_remove},
    CommandEntry{"bind", "add a keyslot that servers or a TPM open", true, true, make_bind},
    CommandEntry{"unbind", "remove a binding with its keyslot", true, true, make_unbind},
    CommandEntry{"bindings", "list the bindings of a volume", false, false, make_bindings},
    CommandEntry{"rebind", "give bindings new keys, and the same policy", true, true, make_rebind},
    CommandEntry{"rekey", "rebind many volumes, and tell what is left", true, true, make_rekey},
    CommandEntry{"edit", "give a binding another policy", true, true, make_edit},
    CommandEntry{"top-up", "add the shares whose servers were down", true, true, make_top_up},
    CommandEntry{"report", "tell what is wrong with the bindings of volumes", false, false,
                 make_report},
    CommandEntry{"passphrase", "show the passphrase of a binding", false, false, make_passphrase},
    CommandEntry{"unlock", "prove that bindings open volumes", false, false, make_unlock},
    CommandEntry{"recover request", "ask for help to open a volume without network", true, false,
                 make_recover_request},
    CommandEntry{"recover answer", "help, where the servers can be reached", true, false,
                 make_recover_answer},
    CommandEntry{"recover finish", "open the volume with the help that came", true, false,
                 make_recover_finish},
    CommandEntry{"policy show", "show what a policy allows", false, false, make_policy_show},
    CommandEntry{"policy check", "tell whether a policy allows a header", false, false,
                 make_policy_check},
    CommandEntry{"inspect", "tell what an image is, and whether it is safe", false, false,
                 make_inspect},
    CommandEntry{"image encrypt", "make an encrypted image of a plain one", true, true,
                 make_image_encrypt},
    CommandEntry{"image decrypt", "make a plain image of an encrypted one", true, false,
                 make_image_decrypt},
    CommandEntry{"image convert", "turn raw into qcow2 or back, encrypted or not", true, true,
                 make_image_convert},
    CommandEntry{"image rekey", "encrypt an encrypted image anew, with other keys", true, true,
                 make_image_rekey},
    CommandEntry{"image volume-check", "tell whether an image may become a volume of a type", false,
                 false, make_image_volume_check},
    CommandEntry{"image properties", "tell what services are to be told of an encrypted image",
                 true, false, make_image_properties},
    CommandEntry{"image export", "put an image and its key into a bundle for somebody else", true,
                 false, make_image_export},
    CommandEntry{"image import", "take an image and its key out of a bundle", true, false,
                 make_image_import},
    CommandEntry{"image upload", "put an image into Glance", true, false, make_image_upload},
    CommandEntry{"image download", "fetch an image from Glance", true, false, make_image_download},
    CommandEntry{"image verify", "tell whether an image in Glance is as it should be", false, false,
                 make_image_verify},
    CommandEntry{"image delete", "delete an image from Glance, and its key if it says so", true,
                 false, make_image_delete},
    CommandEntry{"tang serve", "answer clients that unlock volumes over the network", false, false,
                 make_tang_serve},
    CommandEntry{"tang keygen", "make a pair of keys", true, false, make_tang_keygen},
    CommandEntry{"tang rotate", "make new keys and hide the old", true, false, make_tang_rotate},
    CommandEntry{"tang keys", "list the keys", false, false, make_tang_keys},
    CommandEntry{"tang hide", "stop telling of a key, and go on answering with it", true, false,
                 make_tang_hide},
    CommandEntry{"tang unhide", "tell of a hidden key again", true, false, make_tang_unhide},
    CommandEntry{"tang delete", "destroy a hidden key that nobody needs any more", true, false,
                 make_tang_delete},
    CommandEntry{"tang usage", "tell who used which key", false, false, make_tang_usage},
    CommandEntry{"tang backup", "write all keys to one sealed and signed file", true, false,
                 make_tang_backup},
    CommandEntry{"tang restore", "put the keys of a backup back", true, false, make_tang_restore},
    CommandEntry{"config", "show or change label, subsystem, priorities, flags", true, true,
                 make_config},
    CommandEntry{"erase", "remove every keyslot: nobody opens the volume again", true, true,
                 make_erase},
    CommandEntry{"keystore init", "make a keystore", true, false, make_keystore_init},
    CommandEntry{"keystore store", "store a secret, or have a key made", true, false,
                 make_keystore_store},
    CommandEntry{"keystore get", "fetch a secret", false, false, make_keystore_get},
    CommandEntry{"keystore list", "list the secrets", false, false, make_keystore_list},
    CommandEntry{"keystore show", "show what is known of a secret", false, false,
                 make_keystore_show},
    CommandEntry{"keystore delete", "delete a secret that nothing uses", true, false,
                 make_keystore_delete},
    CommandEntry{"keystore consumers", "show or change what uses a secret", true, false,
                 make_keystore_consumers},
    CommandEntry{"keystore metadata", "show or change a secret's metadata", true, false,
                 make_keystore_metadata},
    CommandEntry{"keystore access", "show or change who may read a secret", true, false,
                 make_keystore_access},
    CommandEntry{"keystore copy", "copy secrets to another key manager", true, false,
                 make_keystore_copy},
    CommandEntry{"keystore reconcile", "find secrets that dangle or leak", true, false,
                 make_keystore_reconcile},
    CommandEntry{"keystore resolve", "find out which passphrase a secret stands for", true, false,
                 make_keystore_resolve},
    CommandEntry{"keystore rewrap", "give a keystore another key", true, false,
                 make_keystore_rewrap},
    CommandEntry{"bench kdf", "measure key derivation on this machine", false, false,
                 make_bench_kdf},
    CommandEntry{"bench ciphers", "measure the ciphers on this machine", false, false,
                 make_bench_ciphers},
    CommandEntry{"completion", "print a completion script for a shell", false, false,
                 make_completion},
    CommandEntry{"help", "explain the program or a command", false, false, make_help},
    CommandEntry{"version", "print the version", false, false, make_version},
};

}  // namespace

std::span<const CommandEntry> all_commands() { return kCommands; }

Options options_of(const CommandEntry& entry, Command& command, Session& session) {
  Options options;
  command.declare(options);
  options.heading("General");
  // Elsewhere --insecure could be taken for the command's own lack of care.
  const bool own = entry.name.starts_with("keystore ") || uses_image_service(options);
  if (uses_key_manager(entry, options)) {
    declare_key_manager(options, session, own ? "--insecure" : "--key-manager-insecure");
  }
  if (entry.changes) {
    options.flag({.name = "--dry-run", .help = "say what would change, and change nothing"},
                 session.dry_run);
    options.flag({.name = "--yes", .help = "go on where the program would ask"}, session.yes);
  }
  if (entry.archives) {
    options.flag({.name = "--no-archive", .help = "keep no copy of the header in the archive"},
                 session.no_archive);
  }
  options.flag(
      {.name = "--allow-backing", .help = "qcow2: read the backing files that an image names"},
      allowed_named_files().backing);
  options.add_each(
      {.name = "--backing-key",
       .value = "SOURCE",
       .help = "qcow2: the key of an encrypted backing file, from the top; the last one "
               "is that of all further ones"},
      allowed_named_files().backing_keys);
  options.flag({.name = "--allow-data-file",
                .help = "qcow2: read the external data file that an image names"},
               allowed_named_files().data_file);
  options.flag({.name = "--json", .help = "print the result for programs"}, session.json);
  options.flag({.name = "--quiet", .help = "print no remarks and no progress"}, session.quiet);
  return options;
}

}  // namespace lukskeep::cli
