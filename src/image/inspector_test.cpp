#include "image/inspector.h"
#include <gtest/gtest.h>
TEST(Inspector, Empty) {
  lukskeep::image::Inspector i;
  EXPECT_EQ(i.finish().format, "raw");
}
