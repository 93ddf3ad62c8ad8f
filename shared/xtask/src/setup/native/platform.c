// What mlx-c's users on a Mac have from the system.
#include <stdint.h>
#include <time.h>

// mlx-rs seeds its random numbers with it.
uint64_t mach_approximate_time(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
