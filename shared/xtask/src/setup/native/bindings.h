// Included before mlx-c's headers when their bindings are made (see setup/bindings.rs): the
// half-precision types as mlx-rs expects them, on every processor.
#define MLX_HALF_H
#define HAS_FLOAT16
#define HAS_BFLOAT16
typedef unsigned short bfloat16_t;
typedef struct { unsigned short bits; } float16_t;
