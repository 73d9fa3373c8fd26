// token list, import, export, remove.
#include <optional>
#include <string>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/command.h"
#include "cli/header_view.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "keys/key_source.h"
#include "luks/luks2_codec.h"

namespace lukskeep::cli {
namespace {

// The VOLUME and TOKEN that a command names.
struct TokenArgs {
  VolumeArgs volume;
  int id = 0;

  void declare(Options& options) {
    volume.declare(options);
    options.positional({.name = "TOKEN", .help = "the number of the token"}, text);
  }

  const luks::Token& find(const luks::Header& header) {
    id = static_cast<int>(parse_number(text) & 0x7fffffff);
    const auto found = header.tokens.find(id);
    if (found != header.tokens.end()) return found->second;
    throw Error(Code::kNotFound,
                fmt::format("'{}' has no token {}", printable(volume.volume, 256), id));
  }

  std::string text;
};

class TokenList final : public Command {
 public:
  void declare(Options& options) override { volume_.declare(options); }

  void run(const Session& session) override {
    const luks::HeaderFile file = open_header(volume_);
    const luks::Header& header = file.header();
    show(session, {{"volume", volume_.volume}, {"tokens", tokens_json(header)}},
         header.tokens.empty() ? "  none\n" : tokens_text(header));
  }

 private:
  VolumeArgs volume_;
};

class TokenImport final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.positional({.name = "FILE", .help = "the token as JSON, or - for standard input"},
                       path_);
    options.add({.name = "--token", .value = "N", .help = "store it as token N"}, id_);
    options.flag({.name = "--replace", .help = "take the place of a token that is there"},
                 replace_);
  }

  void run(const Session& session) override {
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    luks::Header header = file.header();
    if (header.version == luks::Version::kLuks1) {
      throw Error(Code::kUnsupported, fmt::format("'{}' is LUKS1, which has no tokens",
                                                  printable(volume_.volume, 256)));
    }
    const int id = choose_id(header);
    header.tokens[id] = read_token(session);
    const std::string type = header.tokens[id].type;
    file.commit({.header = std::move(header), .new_areas = {}, .obsolete = {}});
    report(
        session, {{"volume", volume_.volume}, {"token", id}, {"type", type}},
        fmt::format("{} token {} of type '{}' in '{}'", session.dry_run ? "would store" : "stored",
                    id, printable(type), printable(volume_.volume, 256)));
  }

 private:
  int choose_id(const luks::Header& header) const {
    if (id_) {
      if (*id_ >= luks::kLuks2TokenCountMax) {
        throw Error(Code::kInvalidArgument,
                    fmt::format("there is no token {}: they count from 0 to {}", *id_,
                                luks::kLuks2TokenCountMax - 1));
      }
      if (header.tokens.contains(*id_) && !replace_) {
        throw Error(
            Code::kExists,
            fmt::format("'{}' has a token {} already", printable(volume_.volume, 256), *id_),
            "--replace takes its place");
      }
      return *id_;
    }
    for (int id = 0; id < luks::kLuks2TokenCountMax; ++id) {
      if (!header.tokens.contains(id)) return id;
    }
    throw Error(Code::kExists,
                fmt::format("'{}' has no room for another token", printable(volume_.volume, 256)),
                "remove one, or name one with --token N --replace");
  }

  // A token may hold a sealed secret: it is read as a key is.
  luks::Token read_token(const Session& session) const {
    keys::KeySource source{.kind = keys::KeySource::Kind::kFile, .path = path_};
    const SecretBytes text = keys::read_key(source, {}, {}, session.cancel);
    return luks::parse_token(as_string_view(text.span()),
                             fmt::format("token in '{}'", printable(path_, 256)));
  }

  VolumeArgs volume_;
  std::string path_;
  std::optional<int> id_;
  bool replace_ = false;
};

class TokenExport final : public Command {
 public:
  void declare(Options& options) override { args_.declare(options); }

  void run(const Session& session) override {
    const luks::HeaderFile file = open_header(args_.volume);
    const luks::Token& token = args_.find(file.header());
    if (!session.json) return print(token.json + "\n");
    print_json({{"id", args_.id},
                {"type", token.type},
                {"keyslots", token.keyslots},
                {"json", OrderedJson::parse(token.json)}});
  }

 private:
  TokenArgs args_;
};

class TokenRemove final : public Command {
 public:
  void declare(Options& options) override { args_.declare(options); }

  void run(const Session& session) override {
    luks::HeaderFile file = open_header_for_change(session, args_.volume, true);
    const std::string type = args_.find(file.header()).type;
    luks::Header header = file.header();
    header.tokens.erase(args_.id);
    file.commit({.header = std::move(header), .new_areas = {}, .obsolete = {}});
    report(session, {{"volume", args_.volume.volume}, {"removed", args_.id}, {"type", type}},
           fmt::format("{} token {} of type '{}' from '{}'",
                       session.dry_run ? "would remove" : "removed", args_.id, printable(type),
                       printable(args_.volume.volume, 256)));
  }

 private:
  TokenArgs args_;
};

}  // namespace

std::unique_ptr<Command> make_token_list() { return std::make_unique<TokenList>(); }
std::unique_ptr<Command> make_token_import() { return std::make_unique<TokenImport>(); }
std::unique_ptr<Command> make_token_export() { return std::make_unique<TokenExport>(); }
std::unique_ptr<Command> make_token_remove() { return std::make_unique<TokenRemove>(); }

}  // namespace lukskeep::cli
