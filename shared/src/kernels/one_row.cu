// y = W x for one row x and a W of 4-bit codes: w[n][k] = scale * code + bias, with a scale and a
// bias for G neighbours in a row. The body of a kernel: MLX writes its head, with
//
//   T x[K], uint32_t w[N, K/8], T scales[N, K/G], T biases[N, K/G]  ->  T y[N]
//
// and the constants T and G. A thread keeps 32 numbers of x, and takes the 16 bytes that belong to
// them from each of ROWS rows; the threads of a block together have all of x.

constexpr int ROWS = 4;
constexpr int MAX_WARPS = 32;
struct alignas(16) Eight {
  T values[8];
};

const int n = w_shape[0];
const int threads = w_shape[1] / 4;
const int thread = threadIdx.x;
const int row = blockIdx.x * ROWS;
const bool has_x = thread < threads;

// What memory has to give is asked for first, all of it: one row of codes is too little to keep it
// busy while the numbers before it are multiplied. Each code is read once, so no cache need keep it.
uint4 codes[ROWS];
T scale[ROWS], bias[ROWS];
#pragma unroll
for (int r = 0; r < ROWS; r++) {
  const bool is_there = has_x && row + r < n;
  const size_t at = size_t(row + r) * threads + thread;
  codes[r] = is_there ? __ldcs(reinterpret_cast<const uint4*>(w) + at) : uint4{0, 0, 0, 0};
  scale[r] = is_there ? scales[at * 32 / G] : T(0.f);
  bias[r] = is_there ? biases[at * 32 / G] : T(0.f);
}

// x may be a view that begins in the middle of something.
const bool is_aligned = reinterpret_cast<size_t>(x) % alignof(Eight) == 0;
float own[32];
float sum = 0.f;
#pragma unroll
for (int i = 0; i < 4; i++) {
  const int at = thread * 32 + 8 * i;
  Eight eight;
  if (has_x && is_aligned) {
    eight = *reinterpret_cast<const Eight*>(x + at);
  } else if (has_x) {
    for (int j = 0; j < 8; j++) eight.values[j] = x[at + j];
  }
  #pragma unroll
  for (int j = 0; j < 8; j++) {
    own[8 * i + j] = has_x ? float(eight.values[j]) : 0.f;
    sum += own[8 * i + j];
  }
}

// A code becomes a float without a conversion: as the upper 4 bits of the fraction of 16 it is 16 +
// code. The sixteens are taken off at the end, all at once.
__shared__ float partial[MAX_WARPS][ROWS];
#pragma unroll
for (int r = 0; r < ROWS; r++) {
  const uint32_t words[4] = {codes[r].x, codes[r].y, codes[r].z, codes[r].w};
  float dot = 0.f;
  #pragma unroll
  for (int i = 0; i < 4; i++) {
    #pragma unroll
    for (int j = 0; j < 8; j++) {
      const uint32_t bits = j < 5 ? words[i] << (19 - 4 * j) : words[i] >> (4 * j - 19);
      dot += __uint_as_float((bits & 0x00780000u) | 0x41800000u) * own[8 * i + j];
    }
  }
  float part = float(scale[r]) * (dot - 16.f * sum) + float(bias[r]) * sum;
  #pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    part += __shfl_xor_sync(0xffffffffu, part, lanes);
  }
  if (thread % 32 == 0) partial[thread / 32][r] = part;
}
__syncthreads();
if (thread < ROWS && row + thread < n) {
  float total = 0.f;
  for (int warp = 0; warp < blockDim.x / 32; warp++) {
    total += partial[warp][thread];
  }
  y[row + thread] = T(total);
}
