// Stands where the BLAS of MLX's wheel stood: matrix products go to a fast library, everything else
// (LAPACK asks for it) to the old one. setup/blas.rs gives LIBRARY, the file beside this one, PREFIX,
// which its names may have, and CORES.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define GEMM(name, scalar, element)                                                              \
  static void (*name)(int, int, int, int, int, int, scalar, const element*, int, const element*, \
                      int, scalar, element*, int);                                               \
  void cblas_##name(int order, int trans_a, int trans_b, int m, int n, int k, scalar alpha,      \
                    const element* a, int lda, const element* b, int ldb, scalar beta,           \
                    element* c, int ldc) {                                                       \
    name(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);                 \
  }

GEMM(sgemm, float, float)
GEMM(dgemm, double, double)
GEMM(cgemm, const void*, void)

// OpenMP reads the environment when it is loaded, and not again: so it is loaded from here, with the
// library that needs it, and not by the loader before any code of ours could run.
__attribute__((constructor)) static void load(void) {
  // BLIS uses one thread unless told otherwise.
  setenv("OMP_NUM_THREADS", CORES, 0);
  // OpenMP's threads wait for work in a busy loop, for milliseconds, on cores that MLX's own thread
  // needs: on two cores a prompt of 30 tokens took up to forty times as long. Asleep, they cost
  // microseconds to wake.
  setenv("OMP_WAIT_POLICY", "passive", 0);
  // Bound deeply, since it has names in common with the old library, which would win.
  void* library = dlopen("$ORIGIN/" LIBRARY, RTLD_NOW | RTLD_DEEPBIND);
  if (library) {
    *(void**)&sgemm = dlsym(library, PREFIX "cblas_sgemm");
    *(void**)&dgemm = dlsym(library, PREFIX "cblas_dgemm");
    *(void**)&cgemm = dlsym(library, PREFIX "cblas_cgemm");
  }
  if (sgemm && dgemm && cgemm) return;
  const char* reason = dlerror();
  fprintf(stderr, "error: cannot load the BLAS: %s; run `cargo setup` again\n",
          reason ? reason : LIBRARY " has no matrix products");
  _exit(1);
}
