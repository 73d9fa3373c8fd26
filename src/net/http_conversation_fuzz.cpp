// A client's bytes, in large and in small pieces: everything is answered or refused, and it ends.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "net/http_conversation.h"

namespace {

using namespace lukskeep;

std::string answers(std::string_view input, std::size_t piece) {
  const net::HttpHandler handler = [](const net::HttpServerRequest& request) {
    return net::HttpReply{.status = request.body.empty() ? 404U : 200U};
  };
  net::HttpConversation conversation({.target_bytes = 100, .header_bytes = 500, .body_bytes = 200},
                                     handler);
  std::string all;
  while (!conversation.closing() && !(input.empty() && conversation.wants_input())) {
    if (conversation.wants_input()) {
      const std::string_view part = input.substr(0, piece);
      conversation.receive(as_byte_view(part));
      input.remove_prefix(part.size());
    }
    std::string out;
    conversation.answer(out);
    all += out;
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView bytes = std::as_bytes(std::span(data, size));
  const std::string_view text = as_string_view(bytes);
  static_cast<void>(answers(text, 16384));
  static_cast<void>(answers(text, 7));
  return 0;
}
