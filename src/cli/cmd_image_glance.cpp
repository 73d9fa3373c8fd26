// image upload, download, verify, delete: images in Glance, with the secrets that open them.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/uuid.h"
#include "cli/cmd_image.h"
#include "cli/copy_args.h"
#include "cli/image_properties.h"
#include "cli/image_service.h"
#include "cli/inspection.h"
#include "cli/key_manager_args.h"
#include "cli/volume_access.h"
#include "image/glance_transfer.h"
#include "image/inspect_device.h"
#include "keys/key_manager.h"
#include "storage/partial_file.h"

namespace lukskeep::cli {
namespace {

using image::GlanceImage;
using image::Properties;
using image::PropertyProblem;
using image::Report;

std::string in_quotes(const std::string& name) { return fmt::format("'{}'", printable(name, 256)); }

OrderedJson image_json(const GlanceImage& image) {
  return {{"id", image.id},
          {"name", image.name},
          {"status", image.status},
          {"size", image.size_bytes ? OrderedJson(*image.size_bytes) : OrderedJson()},
          {"hash_algorithm", image.hash_algorithm},
          {"hash", image.hash}};
}

void refuse_unsafe(const Report& report, const std::string& name) {
  if (report.safe()) return;
  throw Error(Code::kUnsafe, fmt::format("{} is not safe: {}", name, danger_text(report)),
              "see lukskeep inspect; --allow names what is well nevertheless");
}

void declare_allow(Options& options, image::AllowList& allow) {
  options.add({.name = "--allow", .value = "NAME,...", .help = "findings that are no danger"},
              [&allow](const std::string& value) { allow = image::parse_allow_list(value); });
}

class ImageUpload final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "FILE", .help = "the image"}, path_);
    service_.declare(options);
    options.add({.name = "--name", .value = "NAME", .help = "what the image is called"}, name_);
    options.add({.name = "--key-id",
                 .value = "ID",
                 .help = "the secret that opens it, in the key manager of the cloud"},
                args_.key_id);
    args_.declare_output(options);
    options.add({.name = "--properties",
                 .value = "SET",
                 .help = "more of what is said of the image, in JSON; - is standard input"},
                set_path_);
    declare_allow(options, allow_);
    progress_.declare(options);
  }

  void run(const Session& session) override {
    const std::shared_ptr<Device> device = open_device(path_, storage::Access::kRead);
    const Report report = image::inspect(
        device, {.inspector = {.expected = {}, .allow = allow_}, .cancel = session.cancel});
    refuse_unsafe(report, in_quotes(path_));
    Properties set;
    if (set_path_) set = read_property_set(session, *set_path_);
    const image::Services services = service_.services(session, session.cancel, false);
    const std::vector<std::string> formats = services.glance->disk_formats();
    const Properties properties = complete(set, report, formats);
    const std::string key_id = image::read_properties(properties).description.key_id;
    if (!session.dry_run && !key_id.empty()) require_secret(session, key_id);
    if (session.dry_run) return finish(session, {}, properties, false);
    ProgressDisplay display(progress_, session);
    const auto uploaded = image::upload_image(
        [&](const CancelToken* cancel) {
          return service_.services(session, cancel, !key_id.empty());
        },
        *device,
        {.id = random_uuid(),
         .name = name_.value_or(""),
         .properties = properties,
         .key_id = key_id,
         .progress = display.callback(),
         .cancel = session.cancel});
    if (!key_id.empty() && !uploaded.consumer) {
      warn("the key manager knows no consumers: nothing keeps the secret from being deleted");
    }
    finish(session, uploaded.image, properties, uploaded.consumer);
  }

 private:
  // What the file is goes before what the set says of it.
  Properties complete(const Properties& set, const Report& report,
                      const std::vector<std::string>& formats) const {
    const auto read = image::read_properties(set);
    if (image::has_error(read.problems)) {
      warn_of(read.problems);
      throw Error(Code::kInvalidArgument, "the set of properties contradicts itself");
    }
    Properties others = set;
    std::erase_if(others, [](const auto& member) {
      return image::is_image_attribute(member.first) || image::is_encryption_property(member.first);
    });
    if (!report.encrypted) {
      refuse_said_to_be_encrypted(read.description);
      others["disk_format"] = plain_format(report, formats);
      others["container_format"] = "bare";
      return others;
    }
    image::Description description = image::describe(report);
    description.key_id = read.description.key_id;
    description.delete_key = read.description.delete_key;
    args_.apply(description);
    if (description.key_id.empty()) {
      throw Error(Code::kUsage,
                  fmt::format("{} is encrypted, and no secret is named for it", in_quotes(path_)),
                  "--key-id, or a set with os_encrypt_key_id");
    }
    others.merge(
        image::write_properties(description, {.style = args_.style, .disk_formats = formats}));
    // What is written has to be read again as it was meant.
    const auto written = image::read_properties(others);
    if (image::has_error(written.problems)) {
      warn_of(written.problems);
      throw Error(Code::kInvalidArgument, "the set of properties would mean nothing",
                  "--key-id takes the ID that the key manager gave the secret");
    }
    return others;
  }

  // Whoever names a secret takes the image for one that nobody else can read.
  void refuse_said_to_be_encrypted(const image::Description& said) const {
    if (!args_.key_id && said.key_id.empty() && said.encryption == image::Encryption::kNone) return;
    throw Error(Code::kInvalidArgument,
                fmt::format("{} is not encrypted, and it is said to be", in_quotes(path_)),
                "lukskeep image encrypt makes it so; else leave out --key-id and what the set says "
                "of encryption");
  }

  // A disk with or without partitions, and an ISO, are raw where Glance has no word for them; what
  // is raw of other formats would be another disk.
  std::string plain_format(const Report& report, const std::vector<std::string>& formats) const {
    const std::string& format = report.format;
    const bool taken = formats.empty() || std::ranges::find(formats, format) != formats.end();
    if (format == "raw" || format == "gpt" || format == "mbr") return "raw";
    if (taken || format == "qcow2") return format;
    if (format == "iso") return "raw";
    throw Error(Code::kUnsupported,
                fmt::format("{} is {}, which this Glance does not take", in_quotes(path_), format),
                "qemu-img convert -O qcow2 makes an image that it takes");
  }

  void require_secret(const Session& session, const std::string& id) const {
    const auto manager = open_key_manager(session);
    if (manager->find(id)) return;
    throw Error(Code::kNotFound,
                fmt::format("{} has no secret '{}'", manager->description(), printable(id)),
                "lukskeep keystore copy brings it there");
  }

  void finish(const Session& session, const GlanceImage& image, const Properties& properties,
              bool consumer) const {
    report(session,
           {{"file", path_},
            {"image", image.id.empty() ? OrderedJson() : image_json(image)},
            {"consumer", consumer},
            {"properties", properties}},
           image.id.empty() ? fmt::format("would upload {} as {}", in_quotes(path_),
                                          properties.at("disk_format"))
                            : fmt::format("uploaded {} as image {}", in_quotes(path_), image.id));
  }

  std::string path_;
  ImageServiceArgs service_;
  std::optional<std::string> name_;
  PropertyArgs args_;
  std::optional<std::string> set_path_;
  image::AllowList allow_;
  ProgressArgs progress_;
};

class ImageDownload final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "IMAGE", .help = "its ID"}, id_);
    options.positional({.name = "FILE", .help = "to make"}, path_);
    service_.declare(options);
    declare_allow(options, allow_);
    progress_.declare(options);
  }

  void run(const Session& session) override {
    const image::Services services = service_.services(session, session.cancel, false);
    const GlanceImage image = services.glance->get(id_);
    if (image.status != "active") {
      throw Error(Code::kNotFound, fmt::format("image {} has no data yet: it is '{}'",
                                               in_quotes(id_), printable(image.status)));
    }
    if (image.hash_algorithm.empty()) {
      warn(fmt::format("{} has no checksum of the image: what arrives cannot be verified",
                       services.glance->name()));
    }
    if (session.dry_run) return finish(session, image, {});
    storage::PartialFile part(path_, image.id);
    receive(session, *services.glance, image, part);
    const Report report = image::inspect(
        part.device(), {.inspector = {.expected = {}, .allow = allow_}, .cancel = session.cancel});
    refuse_unsafe(report, fmt::format("image {}", in_quotes(id_)));
    part.commit();
    const auto read = image::read_properties(image.properties);
    std::vector<PropertyProblem> problems = read.problems;
    for (auto& problem : image::check_properties(read.description, report)) {
      problems.push_back(std::move(problem));
    }
    const bool said = read.description.encryption != image::Encryption::kNone;
    if (!session.json && (report.encrypted || said)) warn_of(problems);
    finish(session, image, problems);
  }

 private:
  // What was received stays for the next run, unless it is known to be wrong.
  void receive(const Session& session, image::Glance& glance, const GlanceImage& image,
               storage::PartialFile& part) const {
    try {
      ProgressDisplay display(progress_, session);
      image::download_image(glance, image, *part.device(),
                            {.progress = display.callback(), .cancel = session.cancel});
    } catch (const Error& error) {
      if (error.code() == Code::kDamaged || part.device()->size_bytes() == 0) throw;
      part.keep();
      throw Error(
          error.code(), error.message(),
          fmt::format("{}{}what arrived is in {}; the same command goes on from there",
                      error.hint(), error.hint().empty() ? "" : "; ", in_quotes(part.part_path())));
    }
  }

  void finish(const Session& session, const GlanceImage& image,
              const std::vector<PropertyProblem>& problems) const {
    Properties set = image.properties;
    std::erase_if(set, [](const auto& member) {
      return image::is_image_attribute(member.first) && member.first != "disk_format" &&
             member.first != "container_format";
    });
    report(session,
           {{"file", path_},
            {"image", image_json(image)},
            {"properties", set},
            {"problems", problems_json(problems)}},
           fmt::format("{} image {} to {}", session.dry_run ? "would download" : "downloaded",
                       in_quotes(id_), in_quotes(path_)));
  }

  std::string id_;
  std::string path_;
  ImageServiceArgs service_;
  image::AllowList allow_;
  ProgressArgs progress_;
};

class ImageVerify final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "IMAGE", .help = "its ID"}, id_);
    options.optional_positional(
        {.name = "FILE", .help = "a copy to compare; without one the data is read from Glance"},
        path_);
    service_.declare(options);
    progress_.declare(options);
  }

  void run(const Session& session) override {
    const image::Services services = service_.services(session, session.cancel, false);
    const GlanceImage image = services.glance->get(id_);
    std::shared_ptr<Device> file;
    if (!path_.empty()) file = open_device(path_, storage::Access::kRead);
    const auto verified = [&] {
      ProgressDisplay display(progress_, session);
      return image::verify_image(*services.glance, image, file.get(),
                                 {.progress = display.callback(), .cancel = session.cancel});
    }();
    const auto read = image::read_properties(image.properties);
    std::vector<PropertyProblem> problems = read.problems;
    for (auto& problem : image::check_properties(read.description, verified.report)) {
      problems.push_back(std::move(problem));
    }
    if (!verified.checksum_known) {
      problems.push_back({.name = "no-checksum",
                          .error = false,
                          .property = {},
                          .what = "the service has no checksum of the image that is known here",
                          .remedy = "compare it with a copy of your own"});
    }
    const std::string& key_id = read.description.key_id;
    if (!key_id.empty()) check_secret(*open_key_manager(session), key_id, image.id, problems);
    if (image::has_error(problems)) session.outcome->exit_status = exit_status(Code::kUnsafe);
    if (!session.json) warn_of(problems);
    show(session,
         {{"image", image_json(image)},
          {"good", !image::has_error(problems)},
          {"checksum", verified.checksum_known},
          {"report", report_json(verified.report)},
          {"problems", problems_json(problems)}},
         session.quiet
             ? ""
             : fmt::format("image {} is {}\n", in_quotes(id_),
                           image::has_error(problems) ? "NOT as it should be" : "as it should be"));
  }

 private:
  static void check_secret(keys::KeyManager& manager, const std::string& key_id,
                           const std::string& image_id, std::vector<PropertyProblem>& problems) {
    if (!manager.find(key_id)) {
      problems.push_back({.name = "secret-missing",
                          .property = "os_encrypt_key_id",
                          .what = fmt::format("{} has no secret '{}': nobody opens the image",
                                              manager.description(), printable(key_id)),
                          .remedy = "bring the secret back, or name the one that opens it"});
      return;
    }
    const auto consumers = manager.consumers(key_id);
    const keys::Consumer own = image::consumer_of(image_id);
    if (std::ranges::find(consumers, own) != consumers.end()) return;
    problems.push_back({.name = "not-a-consumer",
                        .error = false,
                        .property = {},
                        .what = "nothing tells the key manager that the image needs the secret",
                        .remedy = fmt::format("lukskeep keystore consumers {} --add {}",
                                              printable(key_id), keys::to_string(own))});
  }

  std::string id_;
  std::string path_;
  ImageServiceArgs service_;
  ProgressArgs progress_;
};

class ImageDelete final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "IMAGE", .help = "its ID"}, id_);
    service_.declare(options);
  }

  void run(const Session& session) override {
    const image::Services services = service_.services(session, session.cancel, false);
    const GlanceImage image = services.glance->get(id_);
    const auto said = image::read_properties(image.properties).description;
    confirm(session,
            fmt::format("Image {} ('{}') will be deleted{}. Go on?", in_quotes(id_),
                        printable(image.name),
                        said.delete_key == true ? ", and its secret if nothing else uses it" : ""),
            Error(Code::kUnsafe, fmt::format("image {} was not deleted", in_quotes(id_))));
    image::Removed removed;
    if (!session.dry_run) {
      std::unique_ptr<keys::KeyManager> manager;
      if (!said.key_id.empty()) manager = open_key_manager(session);
      removed = image::remove_image(*services.glance, image, manager.get());
    }
    if (!removed.key_kept_because.empty()) {
      warn(fmt::format("the secret '{}' was not deleted: {}", printable(said.key_id),
                       removed.key_kept_because));
    }
    report(session,
           {{"image", image_json(image)},
            {"key_id", said.key_id.empty() ? OrderedJson() : OrderedJson(said.key_id)},
            {"key_deleted", removed.key_deleted}},
           fmt::format("{} image {}{}", session.dry_run ? "would delete" : "deleted",
                       in_quotes(id_), removed.key_deleted ? " and its secret" : ""));
  }

 private:
  std::string id_;
  ImageServiceArgs service_;
};

}  // namespace

std::unique_ptr<Command> make_image_upload() { return std::make_unique<ImageUpload>(); }
std::unique_ptr<Command> make_image_download() { return std::make_unique<ImageDownload>(); }
std::unique_ptr<Command> make_image_verify() { return std::make_unique<ImageVerify>(); }
std::unique_ptr<Command> make_image_delete() { return std::make_unique<ImageDelete>(); }

}  // namespace lukskeep::cli
