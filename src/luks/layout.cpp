#include "luks/layout.h"
