#include "crypto/af_splitter.h"
