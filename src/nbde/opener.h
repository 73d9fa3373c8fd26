// How a tree of sealed pins is opened: every leaf in a thread of its own. Internal to nbde.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "nbde/seal.h"
#include "nbde/sealed_pin.h"
#include "nbde/shamir.h"
#include "nbde/tang_client.h"

namespace lukskeep::nbde {

// What a node gave.
struct Opened {
  SecretBytes key;  // its content key
  SecretBytes plain;
  std::unique_ptr<SharedSecret> shared;           // of an sss
  std::vector<std::unique_ptr<Opened>> children;  // of an sss, as its shares; null: not opened
};

// Throws as unseal(). `report`, if not null, gets the leaves in the order of the tree.
std::unique_ptr<Opened> open_tree(const SealedPin& root, const PinContext& context,
                                  std::vector<ShareReport>* report);

}  // namespace lukskeep::nbde
