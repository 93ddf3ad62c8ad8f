// What mlx-c's users on a Mac have from the system. CORES is given by setup/mlxc.rs.
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

// mlx-rs seeds its random numbers with it.
uint64_t mach_approximate_time(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// BLIS uses one thread unless told otherwise. `.mlx/cargo.toml` tells programs that Cargo starts;
// this tells those started by hand.
__attribute__((constructor)) static void use_all_cores(void) {
  setenv("OMP_NUM_THREADS", CORES, 0);
}
