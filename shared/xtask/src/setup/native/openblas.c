// Stands where the BLAS of MLX's wheel stood: matrix products go to OpenBLAS, whose symbols have a
// prefix in the build that PyPI has; everything else (LAPACK asks for it) to the old library.


#define GEMM(name, scalar, element)                                                              \
  void scipy_cblas_##name(int, int, int, int, int, int, scalar, const element*, int,             \
                          const element*, int, scalar, element*, int);                           \
  void cblas_##name(int order, int trans_a, int trans_b, int m, int n, int k, scalar alpha,      \
                    const element* a, int lda, const element* b, int ldb, scalar beta,           \
                    element* c, int ldc) {                                                       \
    scipy_cblas_##name(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);   \
  }

GEMM(sgemm, float, float)
GEMM(dgemm, double, double)
GEMM(cgemm, const void*, void)
