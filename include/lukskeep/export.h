// Marks what liblukskeep exports. Everything else is hidden.
#pragma once

#define LUKSKEEP_API __attribute__((visibility("default")))
