#include "keys/key_source.h"
