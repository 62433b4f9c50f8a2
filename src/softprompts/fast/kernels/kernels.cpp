// Attention of inputs that stand one behind the other, and what layers do between products (GELU, SwiGLU, norms by
// the root of the mean square, rotations of positions), forward and backward, in bfloat16.
//
// Attention: products are taken with the processor's bfloat16 instructions, where it has them AMX's, into float32;
// scores, weights and their gradients are float32, and weights are computed again backwards. A score is
// `scale * q.k + bias`. Tasks, an input and a head of its keys each, are shared among threads; what
// a task writes no other writes, so results do not depend on their number.

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

using bf16 = uint16_t;

namespace {

constexpr int kLanes = 16;        // float32 of one register
constexpr float kLog2E = 1.44269504f;
constexpr int kQueryBlock = 96;   // most queries taken at once, a multiple of 32
constexpr int kTileRows = 8;      // rows of a product held in registers
constexpr int kTileVectors = 3;   // registers of each such row

inline int64_t up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

inline __mmask16 first(int64_t count) {
  return count >= kLanes ? __mmask16(0xFFFF) : count <= 0 ? __mmask16(0) : __mmask16((1u << count) - 1);
}

// Memory of one thread, kept for the next call.
class Scratch {
 public:
  ~Scratch() { std::free(base_); }

  // Make room for so many bytes; return whether there is.
  bool begin(size_t bytes) {
    if (bytes > size_) {
      std::free(base_);
      base_ = static_cast<char*>(std::aligned_alloc(64, up(bytes, 64)));
      size_ = base_ == nullptr ? 0 : bytes;
    }
    used_ = 0;
    return base_ != nullptr;
  }

  template <typename T>
  T* take(int64_t count) {
    T* found = reinterpret_cast<T*>(base_ + used_);
    used_ += up(count * sizeof(T), 64);
    return found;
  }

 private:
  char* base_ = nullptr;
  size_t size_ = 0, used_ = 0;
};

thread_local Scratch scratch;

inline __m512 load_bf16(const bf16* from, __mmask16 mask) {
  const __m256i raw = _mm256_maskz_loadu_epi16(mask, from);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

inline __m256i to_bf16(__m512 value) { return (__m256i)_mm512_cvtneps_pbh(value); }

// Two rows of bfloat16 as pairs, the first in the low halves.
inline __m512i pairs(__m256i low, __m256i high) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

// To 3e-6 of its value; 0 below -104, infinite above 88.8.
inline __m512 exponential(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-110.0f), x);  // the second operand where one is NaN
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.0f / 120.0f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// 2 to the power of x, to 3e-6 of its value; 0 below -150.
inline __m512 power_of_two(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, 8), r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(9.5700761e-3f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5917893e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40247458e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93121791e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.99999285e-1f));
  return _mm512_scalef_ps(p, n);
}

// C (+)= A B for a tile in registers. A has rows of bfloat16, B rows of pairs.
template <int kRows, int kVectors>
void tile(const bf16* a, int64_t lda, const uint32_t* b, int64_t ldb, int64_t depth, float* c,
          int64_t ldc, bool is_added) {
  __m512 sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) sums[m][n] = _mm512_setzero_ps();
  for (int64_t k = 0; k < depth; ++k) {
    __m512i right[kVectors];
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) right[n] = _mm512_loadu_si512(b + k * ldb + n * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      int32_t pair;
      std::memcpy(&pair, a + m * lda + 2 * k, sizeof pair);
      const __m512i left = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
      for (int n = 0; n < kVectors; ++n)
        sums[m][n] = _mm512_dpbf16_ps(sums[m][n], (__m512bh)left, (__m512bh)right[n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) {
      float* to = c + m * ldc + n * kLanes;
      _mm512_storeu_ps(to, is_added ? _mm512_add_ps(sums[m][n], _mm512_loadu_ps(to)) : sums[m][n]);
    }
}

using Tile = void (*)(const bf16*, int64_t, const uint32_t*, int64_t, int64_t, float*, int64_t, bool);

#define ROWS_OF(r) {tile<r, 1>, tile<r, 2>, tile<r, 3>}
constexpr Tile kTiles[kTileRows][kTileVectors] = {ROWS_OF(1), ROWS_OF(2), ROWS_OF(3), ROWS_OF(4),
                                                  ROWS_OF(5), ROWS_OF(6), ROWS_OF(7), ROWS_OF(8)};
#undef ROWS_OF

#if __clang_major__ >= 12 || __GNUC__ >= 11  // compilers that know AMX

// Whether the processor multiplies tiles of bfloat16, and Linux lets this process do so.
bool may_use_tiles() {
  unsigned a, b, c, d;
  constexpr unsigned kNeeded = 1u << 24 | 1u << 22;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kNeeded) != kNeeded) return false;
  return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

// Shapes of tiles: sums in 0 to 3, two of A in 4 and 5, two of B in 6 and 7.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};

  TileShapes(int64_t height, int64_t depth) {
    for (int i = 0; i < 8; ++i) {
      bytes[i] = uint16_t(i == 4 || i == 5 ? 4 * depth : 64);
      rows[i] = uint8_t(i < 6 ? height : depth);
    }
  }
};

// C (+)= A B for one or two tiles of rows and of columns.
template <int kHigh, int kWide>
__attribute__((target("amx-tile,amx-bf16"))) void multiply_tiles(const bf16* a, int64_t lda, const uint32_t* b,
                                                                 int64_t ldb, int64_t depth, int64_t step, float* c,
                                                                 int64_t ldc, bool is_added) {
  float *c1 = c + kLanes, *c2 = c + kLanes * ldc, *c3 = c2 + kLanes;
  if (is_added) {
    _tile_loadd(0, c, 4 * ldc);
    if (kWide > 1) _tile_loadd(1, c1, 4 * ldc);
    if (kHigh > 1) _tile_loadd(2, c2, 4 * ldc);
    if (kHigh > 1 && kWide > 1) _tile_loadd(3, c3, 4 * ldc);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t k = 0; k < depth; k += step) {
    _tile_loadd(4, a + 2 * k, 2 * lda);
    _tile_loadd(6, b + k * ldb, 4 * ldb);
    _tile_dpbf16ps(0, 4, 6);
    if (kHigh > 1) {
      _tile_loadd(5, a + kLanes * lda + 2 * k, 2 * lda);
      _tile_dpbf16ps(2, 5, 6);
    }
    if (kWide > 1) {
      _tile_loadd(7, b + k * ldb + kLanes, 4 * ldb);
      _tile_dpbf16ps(1, 4, 7);
      if (kHigh > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, 4 * ldc);
  if (kWide > 1) _tile_stored(1, c1, 4 * ldc);
  if (kHigh > 1) _tile_stored(2, c2, 4 * ldc);
  if (kHigh > 1 && kWide > 1) _tile_stored(3, c3, 4 * ldc);
}

// As `product`, by tiles of AMX.
__attribute__((target("amx-tile,amx-bf16"))) void product_of_tiles(const bf16* a, int64_t lda, const uint32_t* b,
                                                                   int64_t ldb, int64_t rows, int64_t columns,
                                                                   int64_t depth, float* c, int64_t ldc,
                                                                   bool is_added) {
  int64_t parts = (depth + kLanes - 1) / kLanes;
  while (depth % parts) ++parts;  // all as deep
  const int64_t step = depth / parts, whole = rows / kLanes * kLanes;
  for (int64_t m = 0; m < rows;) {
    const int64_t left = rows - m;
    if (m == 0 || m == whole) {
      const TileShapes shapes(left < kLanes ? left : kLanes, step);
      _tile_loadconfig(&shapes);
    }
    const bool is_high = left >= 2 * kLanes;
    for (int64_t n = 0; n < columns;) {
      const bool is_wide = columns - n >= 2 * kLanes;
      const auto multiply = is_high ? (is_wide ? multiply_tiles<2, 2> : multiply_tiles<2, 1>)
                                    : (is_wide ? multiply_tiles<1, 2> : multiply_tiles<1, 1>);
      multiply(a + m * lda, lda, b + n, ldb, depth, step, c + m * ldc + n, ldc, is_added);
      n += is_wide ? 2 * kLanes : kLanes;
    }
    m += is_high ? 2 * kLanes : kLanes;
  }
  _tile_release();
}

#else

bool may_use_tiles() { return false; }
void product_of_tiles(const bf16*, int64_t, const uint32_t*, int64_t, int64_t, int64_t, int64_t, float*, int64_t, bool) {}

#endif

bool uses_tiles = may_use_tiles();

// C (+)= A B. A: rows x 2 depth. B: depth x columns of pairs. Columns are a multiple of 16.
void product(const bf16* a, int64_t lda, const uint32_t* b, int64_t ldb, int64_t rows, int64_t columns,
             int64_t depth, float* c, int64_t ldc, bool is_added) {
  if (uses_tiles && depth > 0) return product_of_tiles(a, lda, b, ldb, rows, columns, depth, c, ldc, is_added);
  for (int64_t n = 0; n < columns; n += kTileVectors * kLanes) {
    const int64_t vectors = (columns - n) / kLanes;
    const int wide = vectors < kTileVectors ? int(vectors) : kTileVectors;
    for (int64_t m = 0; m < rows; m += kTileRows) {
      const int high = rows - m < kTileRows ? int(rows - m) : kTileRows;
      kTiles[high - 1][wide - 1](a + m * lda, lda, b + n, ldb, depth, c + m * ldc + n, ldc, is_added);
    }
  }
}

inline void transpose(__m512i r[kLanes]) {
  __m512i t[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Ask for rows before they are needed: they lie a row of all heads apart.
inline void ask_for(const bf16* from, int64_t stride, int64_t rows, int64_t size) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < size; d += 32) _mm_prefetch((const char*)(from + r * stride + d), _MM_HINT_T0);
}

// Rows as pairs along their length, turned: to[size / 2][up(rows, 16)]; 0 behind the rows.
void turn_pairs(const bf16* from, int64_t stride, int64_t rows, int64_t size, uint32_t* to) {
  const int64_t width = up(rows, kLanes), depth = size / 2;
  for (int64_t r = 0; r < rows; r += kLanes)
    for (int64_t k = 0; k < depth; k += kLanes) {
      __m512i block[kLanes];
      const __mmask16 mask = first(depth - k);
      for (int i = 0; i < kLanes; ++i)
        block[i] = r + i < rows ? _mm512_maskz_loadu_epi32(mask, from + (r + i) * stride + 2 * k)
                                : _mm512_setzero_si512();
      transpose(block);
      for (int i = 0; i < kLanes && k + i < depth; ++i) _mm512_store_si512(to + (k + i) * width + r, block[i]);
    }
}

inline __m256i load_row(const bf16* from, int64_t stride, int64_t row, int64_t rows, int64_t column,
                        __mmask16 mask) {
  return row < rows ? _mm256_maskz_loadu_epi16(mask, from + row * stride + column) : _mm256_setzero_si256();
}

// Neighbouring rows as pairs: to[up(rows, 16) / 2][up(size, 16)]; 0 behind the rows.
void pair_rows(const bf16* from, int64_t stride, int64_t rows, int64_t size, uint32_t* to) {
  const int64_t width = up(size, kLanes);
  for (int64_t r = 0; r < up(rows, kLanes); r += 2)
    for (int64_t d = 0; d < size; d += kLanes) {
      const __mmask16 mask = first(size - d);
      _mm512_store_si512(to + r / 2 * width + d, pairs(load_row(from, stride, r, rows, d, mask),
                                                      load_row(from, stride, r + 1, rows, d, mask)));
    }
}

// Neighbouring rows as pairs, turned: to[size][kQueryBlock / 2]; 0 behind the rows.
void turn_rows(const bf16* from, int64_t stride, int64_t rows, int64_t size, uint32_t* to) {
  for (int64_t r = 0; r < rows; r += 2 * kLanes)
    for (int64_t d = 0; d < size; d += kLanes) {
      __m512i block[kLanes];
      const __mmask16 mask = first(size - d);
      for (int i = 0; i < kLanes; ++i)
        block[i] = pairs(load_row(from, stride, r + 2 * i, rows, d, mask),
                         load_row(from, stride, r + 2 * i + 1, rows, d, mask));
      transpose(block);
      for (int i = 0; i < kLanes && d + i < size; ++i)
        _mm512_store_si512(to + (d + i) * (kQueryBlock / 2) + r / 2, block[i]);
    }
}

// Write the transpose of from[size][width] as rows of bfloat16.
void write_turned(const float* from, int64_t width, int64_t rows, int64_t size, bf16* to, int64_t stride) {
  for (int64_t r = 0; r < rows; r += kLanes)
    for (int64_t d = 0; d < size; d += kLanes) {
      __m512i block[kLanes];
      for (int i = 0; i < kLanes; ++i)
        block[i] = d + i < size ? _mm512_load_si512(from + (d + i) * width + r) : _mm512_setzero_si512();
      transpose(block);
      const __mmask16 mask = first(size - d);
      for (int i = 0; i < kLanes && r + i < rows; ++i)
        _mm256_mask_storeu_epi16(to + (r + i) * stride + d, mask, to_bf16(_mm512_castsi512_ps(block[i])));
    }
}

// Queries taken at once, so that blocks are alike; a multiple of the rows of a tile.
inline int64_t query_block(int64_t queries) {
  const int64_t blocks = (queries + kQueryBlock - 1) / kQueryBlock;
  return blocks < 1 ? kQueryBlock : up((queries + blocks - 1) / blocks, kTileRows);
}

// A score times log2(e), so that its weight is a power of two. No bias is so low that the score is infinite: where all
// are hidden all weigh the same.
template <bool kIsBiased>
inline __m512 score(const float* products, const bf16* bias, __mmask16 mask, __m512 factor) {
  const __m512 found = _mm512_load_ps(products);
  if (!kIsBiased) return _mm512_mul_ps(found, factor);
  const __m512 added = _mm512_mul_ps(load_bf16(bias, mask), _mm512_set1_ps(kLog2E));
  return _mm512_fmadd_ps(found, factor, _mm512_max_ps(_mm512_set1_ps(-3e38f), added));
}

// Make weights, but for a factor, of one query's products with keys. Returns the largest score and the weights' sum.
template <bool kIsBiased>
inline void weigh(float* products, const bf16* bias, int64_t keys, __m512 factor, bf16* weights, float* top,
                  float* sum) {
  const int64_t whole = keys / kLanes * kLanes;
  const __mmask16 rest = first(keys - whole);
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 most = lowest;
  for (int64_t j = 0; j < whole; j += kLanes) {
    const __m512 found = score<kIsBiased>(products + j, bias + j, 0xFFFF, factor);
    if (kIsBiased) _mm512_store_ps(products + j, found);
    most = _mm512_max_ps(most, found);
  }
  if (rest) {
    const __m512 found = score<kIsBiased>(products + whole, bias + whole, rest, factor);
    if (kIsBiased) _mm512_store_ps(products + whole, found);
    most = _mm512_mask_max_ps(most, rest, most, found);
  }
  *top = _mm512_reduce_max_ps(most);
  const __m512 base = _mm512_set1_ps(*top);
  __m512 total = _mm512_setzero_ps();
  for (int64_t j = 0; j < whole + (rest ? kLanes : 0); j += kLanes) {
    const __m512 own = _mm512_load_ps(products + j);
    __m512 weight = power_of_two(kIsBiased ? _mm512_sub_ps(own, base) : _mm512_fmsub_ps(own, factor, base));
    if (j == whole) weight = _mm512_maskz_mov_ps(rest, weight);
    total = _mm512_add_ps(total, weight);
    _mm256_store_si256((__m256i*)(weights + j), to_bf16(weight));
  }
  *sum = _mm512_reduce_add_ps(total);
}

// Make weights of one query's products with keys, in their place. Returns what `slopes` are on the mean.
template <bool kIsBiased>
inline float weigh_again(float* products, const bf16* bias, int64_t keys, __m512 factor, float top, float log_sum,
                         const float* slopes) {
  const int64_t whole = keys / kLanes * kLanes;
  const __mmask16 rest = first(keys - whole);
  // in one where nothing is hidden; the sum of both would lose the second where the first is a mask's
  const __m512 base = _mm512_set1_ps(kIsBiased ? top : top + log_sum), behind = _mm512_set1_ps(log_sum);
  __m512 total = _mm512_setzero_ps();
  for (int64_t j = 0; j < whole + (rest ? kLanes : 0); j += kLanes) {
    const __mmask16 mask = j == whole ? rest : __mmask16(0xFFFF);
    __m512 power;
    if (kIsBiased)
      power = _mm512_sub_ps(_mm512_sub_ps(score<true>(products + j, bias + j, mask, factor), base), behind);
    else
      power = _mm512_fmsub_ps(_mm512_load_ps(products + j), factor, base);
    __m512 weight = power_of_two(power);
    if (j == whole) weight = _mm512_maskz_mov_ps(rest, weight);
    _mm512_store_ps(products + j, weight);
    total = _mm512_fmadd_ps(weight, _mm512_load_ps(slopes + j), total);
  }
  return _mm512_reduce_add_ps(total);
}

// Where inputs stand in the rows of queries and keys, and what is added to their scores. Strides are
// in entries. `fused_attention.py` has the same fields in the same order.
struct Layout {
  const int64_t *query_starts, *query_counts, *key_starts, *key_counts;  // one an input
  int64_t inputs, heads, key_heads, size, value_size;
  int64_t query_place, query_head, key_place, key_head, value_place, value_head;
  const bf16* bias;  // may be null
  int64_t bias_input, bias_head, bias_query;
  float scale;
  int32_t threads;
};

// One input with one head of its keys, and the heads of queries that read it.
struct Task {
  int64_t input, key_head, first_head, last_head;
  int64_t keys, width;          // keys, and their number up to whole registers
  int64_t start, count, block;  // queries: the first, all, and those taken at once
  const bf16 *query, *key, *value;

  Task(const Layout& at, int64_t number, const bf16* queries, const bf16* all_keys, const bf16* values)
      : input(number / at.key_heads), key_head(number % at.key_heads) {
    const int64_t copies = at.heads / at.key_heads, key_start = at.key_starts[input];
    first_head = key_head * copies, last_head = first_head + copies;
    keys = at.key_counts[input], width = up(keys, kLanes);
    start = at.query_starts[input], count = at.query_counts[input], block = query_block(count);
    query = queries + start * at.query_place;
    key = all_keys + key_start * at.key_place + key_head * at.key_head;
    value = values + key_start * at.value_place + key_head * at.value_head;
    ask_for(key, at.key_place, keys, at.size);
    ask_for(value, at.value_place, keys, at.value_size);
    ask_for(query + first_head * at.query_head, at.query_place, count, at.size);
  }

  // What is added to the scores of one of the input's queries; may be null.
  const bf16* bias(const Layout& at, int64_t head, int64_t row) const {
    if (at.bias == nullptr) return nullptr;
    return at.bias + input * at.bias_input + head * at.bias_head + row * at.bias_query;
  }
};

// Where gradients go, and what they are made of.
struct Backward {
  const float* tops;
  int64_t queries;
  const bf16* gradient;
  bf16 *of_query, *of_key, *of_value;
  int64_t query_step, key_step, value_step;
};

// Queries that meet keys of one task, and whose gradients are made of that.
struct Meeting {
  int64_t first_query, queries, first_key, keys;
  bool is_of_queries, is_of_keys;
};

inline float dot(const bf16* a, const bf16* b, int64_t size) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t d = 0; d < size; d += kLanes)
    sum = _mm512_fmadd_ps(load_bf16(a + d, first(size - d)), load_bf16(b + d, first(size - d)), sum);
  return _mm512_reduce_add_ps(sum);
}

// Make gradients of queries, or of keys and values, or of all. What the gradient is on the mean of values is its
// product with `output`, where that is given; else the keys must be all that the queries met. Returns whether there is
// memory.
bool bend(const Layout& at, const Task& task, const Backward& back, const Meeting& meeting, const bf16* output) {
  const int64_t size = at.size, value_size = at.value_size, size_width = up(size, kLanes);
  const int64_t gradient_place = at.heads * value_size, half = kQueryBlock / 2;
  const int64_t keys = meeting.keys, width = up(keys, kLanes), block = query_block(meeting.queries);
  const bf16* key = task.key + meeting.first_key * at.key_place;
  const bf16* value = task.value + meeting.first_key * at.value_place;
  if (!scratch.begin(4 * (size / 2 * width + value_size / 2 * width + width / 2 * size_width +
                          (size + value_size) * (width + half) + kQueryBlock * (2 * width + size_width) +
                          2 * half * width) +
                     2 * kQueryBlock * width + 16 * 64))
    return false;
  uint32_t* turned_keys = scratch.take<uint32_t>(size / 2 * width);
  uint32_t* turned_values = scratch.take<uint32_t>(value_size / 2 * width);
  uint32_t* paired_keys = scratch.take<uint32_t>(width / 2 * size_width);
  float* key_sums = scratch.take<float>(size * width);
  float* value_sums = scratch.take<float>(value_size * width);
  uint32_t* turned_queries = scratch.take<uint32_t>(size * half);
  uint32_t* turned_gradients = scratch.take<uint32_t>(value_size * half);
  float* weights = scratch.take<float>(kQueryBlock * width);
  float* slopes = scratch.take<float>(kQueryBlock * width);
  float* query_sums = scratch.take<float>(kQueryBlock * size_width);
  uint32_t* weight_pairs = scratch.take<uint32_t>(half * width);
  uint32_t* slope_pairs = scratch.take<uint32_t>(half * width);
  bf16* slope_rows = scratch.take<bf16>(kQueryBlock * width);
  const bf16* slope_of = back.gradient + task.start * gradient_place;
  ask_for(slope_of + task.first_head * value_size, gradient_place, task.count, value_size);
  turn_pairs(key, at.key_place, keys, size, turned_keys);
  turn_pairs(value, at.value_place, keys, value_size, turned_values);
  if (meeting.is_of_queries) pair_rows(key, at.key_place, keys, size, paired_keys);
  bool is_begun = false;
  const __m512 scale = _mm512_set1_ps(at.scale), factor = _mm512_set1_ps(at.scale * kLog2E);
  for (int64_t head = task.first_head; head < task.last_head; ++head)
    for (int64_t done = 0; done < meeting.queries; done += block) {
      const int64_t begin = meeting.first_query + done;
      const int64_t rows = meeting.queries - done < block ? meeting.queries - done : block;
      const int64_t place = task.start + begin;
      const bf16* q = task.query + begin * at.query_place + head * at.query_head;
      const bf16* g = slope_of + begin * gradient_place + head * value_size;
      product(q, at.query_place, turned_keys, width, rows, width, size / 2, weights, width, false);
      product(g, gradient_place, turned_values, width, rows, width, value_size / 2, slopes, width, false);
      for (int64_t row = 0; row < rows; row += 2) {
        const int64_t together = rows - row < 2 ? 1 : 2;
        __m512 means[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int64_t i = 0; i < together; ++i) {
          float *own = weights + (row + i) * width, *slope = slopes + (row + i) * width;
          const bf16* bias = task.bias(at, head, begin + row + i);
          if (bias != nullptr) bias += meeting.first_key;
          const float top = back.tops[head * back.queries + place + row + i];
          const float log_sum = back.tops[(at.heads + head) * back.queries + place + row + i];
          float mean = (bias == nullptr ? weigh_again<false> : weigh_again<true>)(own, bias, keys, factor, top,
                                                                                 log_sum, slope);
          if (output != nullptr)
            mean = dot(g + (row + i) * gradient_place,
                       output + ((place + row + i) * at.heads + head) * value_size, value_size);
          means[i] = _mm512_set1_ps(-mean * at.scale);
        }
        for (int64_t j = 0; j < width; j += kLanes) {
          __m256i weight[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
          __m256i slope[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
          for (int64_t i = 0; i < together; ++i) {
            const int64_t place_of = (row + i) * width + j;
            const __m512 own = _mm512_load_ps(weights + place_of);
            const __m512 bent = _mm512_fmadd_ps(_mm512_load_ps(slopes + place_of), scale, means[i]);
            weight[i] = to_bf16(own);
            slope[i] = to_bf16(_mm512_mul_ps(own, bent));
            _mm256_store_si256((__m256i*)(slope_rows + place_of), slope[i]);
          }
          _mm512_store_si512(weight_pairs + row / 2 * width + j, pairs(weight[0], weight[1]));
          _mm512_store_si512(slope_pairs + row / 2 * width + j, pairs(slope[0], slope[1]));
        }
      }
      if (meeting.is_of_queries) {
        product(slope_rows, width, paired_keys, size_width, rows, size_width, width / 2, query_sums, size_width,
                false);
        for (int64_t row = 0; row < rows; ++row)
          for (int64_t d = 0; d < size; d += kLanes)
            _mm256_mask_storeu_epi16(back.of_query + (place + row) * back.query_step + head * size + d,
                                     first(size - d), to_bf16(_mm512_load_ps(query_sums + row * size_width + d)));
      }
      if (meeting.is_of_keys) {
        const int64_t full = (rows + 1) / 2, depth = uses_tiles ? up(full, kLanes) : full;  // 0 behind the rows
        const int64_t there = full * width, behind = (depth - full) * width * sizeof(uint32_t);
        std::memset(weight_pairs + there, 0, behind);
        std::memset(slope_pairs + there, 0, behind);
        turn_rows(q, at.query_place, rows, size, turned_queries);
        turn_rows(g, gradient_place, rows, value_size, turned_gradients);
        product((const bf16*)turned_queries, kQueryBlock, slope_pairs, width, size, width, depth, key_sums, width,
                is_begun);
        product((const bf16*)turned_gradients, kQueryBlock, weight_pairs, width, value_size, width, depth,
                value_sums, width, is_begun);
      }
      is_begun = true;
    }
  if (!meeting.is_of_keys) return true;
  if (!is_begun) {
    std::memset(key_sums, 0, size * width * sizeof(float));
    std::memset(value_sums, 0, value_size * width * sizeof(float));
  }
  const int64_t place = at.key_starts[task.input] + meeting.first_key;
  write_turned(key_sums, width, keys, size, back.of_key + place * back.key_step + task.key_head * size, back.key_step);
  write_turned(value_sums, width, keys, value_size,
               back.of_value + place * back.value_step + task.key_head * value_size, back.value_step);
  return true;
}

// Tasks that a thread takes at once: heads of an input share lines of memory.
inline int64_t tasks_at_once(const Layout& at) { return at.inputs >= 4 * at.threads ? at.key_heads : 1; }

// x P(X < x) for a normal X, or its slope. The share beyond x is formula 7.1.26 of Abramowitz and
// Stegun, whose error is below 1.5e-7.
template <bool kIsSlope>
inline __m512 gelu_exact(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 distance = _mm512_min_ps(_mm512_set1_ps(1e4f), _mm512_abs_ps(x));  // finite, or NaN
  const __m512 bell = exponential(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f)));
  const __m512 whole = _mm512_fmadd_ps(distance, _mm512_set1_ps(0.23164190f), one);
  const __m512 guess = _mm512_rcp14_ps(whole);
  const __m512 t = _mm512_mul_ps(guess, _mm512_fnmadd_ps(whole, guess, _mm512_set1_ps(2.0f)));
  __m512 p = _mm512_set1_ps(0.5f * 1.061405429f);
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.5f * -1.453152027f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.5f * 1.421413741f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.5f * -0.284496736f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.5f * 0.254829592f));
  const __m512 beyond = _mm512_mul_ps(_mm512_mul_ps(p, t), bell);
  const __mmask16 is_positive = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NLT_UQ);
  const __m512 share = _mm512_mask_sub_ps(beyond, is_positive, one, beyond);
  if (!kIsSlope) return _mm512_mul_ps(x, share);
  return _mm512_fmadd_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.39894228f)), bell, share);
}

// The same with the share by a hyperbolic tangent, 1 / (1 + exp(-2 u)).
template <bool kIsSlope>
inline __m512 gelu_tanh(__m512 x) {
  // beyond 1000 nothing bends, and squares stay finite; the second operand where one is NaN
  const __m512 near = _mm512_min_ps(_mm512_set1_ps(1000.0f), _mm512_max_ps(_mm512_set1_ps(-1000.0f), x));
  const __m512 square = _mm512_mul_ps(near, near), one = _mm512_set1_ps(1.0f);
  const __m512 ratio = _mm512_fmadd_ps(square, _mm512_set1_ps(0.07135481f), _mm512_set1_ps(1.59576912f));
  // exp(100) is infinite; the second operand where one is NaN
  const __m512 power = _mm512_min_ps(_mm512_set1_ps(100.0f), _mm512_mul_ps(near, _mm512_sub_ps(_mm512_setzero_ps(), ratio)));
  const __m512 share = _mm512_div_ps(one, _mm512_add_ps(one, exponential(power)));
  if (!kIsSlope) return _mm512_mul_ps(x, share);
  const __m512 slope = _mm512_fmadd_ps(square, _mm512_set1_ps(0.21406444f), _mm512_set1_ps(1.59576912f));
  const __m512 bend = _mm512_mul_ps(_mm512_mul_ps(share, _mm512_sub_ps(one, share)), slope);
  return _mm512_fmadd_ps(near, bend, share);
}

template <bool kIsTanh, bool kIsSlope>
void gelu_part(const bf16* input, const bf16* gradient, bf16* output, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += kLanes) {
    const __mmask16 mask = first(end - i);
    const __m512 x = load_bf16(input + i, mask);
    __m512 found = kIsTanh ? gelu_tanh<kIsSlope>(x) : gelu_exact<kIsSlope>(x);
    if (kIsSlope) found = _mm512_mul_ps(found, load_bf16(gradient + i, mask));
    _mm256_mask_storeu_epi16(output + i, mask, to_bf16(found));
  }
}

inline void store_bf16(bf16* to, __mmask16 mask, __m512 value) { _mm256_mask_storeu_epi16(to, mask, to_bf16(value)); }

// One row of silu(gate) * up, or where a gradient is given those of gate and up.
inline void swiglu_row(const bf16* gate, const bf16* up, const bf16* gradient, bf16* output, int64_t width) {
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < width; i += kLanes) {
    const __mmask16 mask = first(width - i);
    const __m512 x = load_bf16(gate + i, mask), other = load_bf16(up + i, mask);
    const __m512 power = exponential(_mm512_sub_ps(_mm512_setzero_ps(), x));
    const __m512 share = _mm512_div_ps(one, _mm512_add_ps(one, power));
    const __m512 bent = _mm512_mul_ps(x, share);
    if (gradient == nullptr) {
      store_bf16(output + i, mask, _mm512_mul_ps(bent, other));
      continue;
    }
    const __m512 slope = load_bf16(gradient + i, mask);
    // share * (1 + x * (1 - share))
    const __m512 own = _mm512_fmadd_ps(bent, _mm512_sub_ps(one, share), share);
    store_bf16(output + i, mask, _mm512_mul_ps(_mm512_mul_ps(slope, other), own));
    store_bf16(output + width + i, mask, _mm512_mul_ps(slope, bent));
  }
}

// Sum of a * b * c, or of a * b where there is no c.
inline float sum_of(const bf16* a, const bf16* b, const bf16* c, int64_t width) {
  __m512 total = _mm512_setzero_ps();
  for (int64_t i = 0; i < width; i += kLanes) {
    const __mmask16 mask = first(width - i);
    __m512 left = load_bf16(a + i, mask);
    if (c != nullptr) left = _mm512_mul_ps(left, load_bf16(c + i, mask));
    total = _mm512_fmadd_ps(left, load_bf16(b + i, mask), total);
  }
  return _mm512_reduce_add_ps(total);
}

// One place of all heads: each half turned by its angles, backwards its gradient.
inline void rotate_place(const bf16* from, int64_t head_step, const bf16* cosine, const bf16* sine, bf16* to,
                         int64_t heads, int64_t half, bool is_back) {
  for (int64_t head = 0; head < heads; ++head, from += head_step, to += 2 * half)
    for (int64_t i = 0; i < half; i += kLanes) {
      const __mmask16 mask = first(half - i);
      const __m512 low = load_bf16(from + i, mask), high = load_bf16(from + half + i, mask);
      const __m512 c = load_bf16(cosine + i, mask), d = load_bf16(cosine + half + i, mask);
      const __m512 s = load_bf16(sine + i, mask), t = load_bf16(sine + half + i, mask);
      if (is_back) {
        store_bf16(to + i, mask, _mm512_fmadd_ps(high, t, _mm512_mul_ps(low, c)));
        store_bf16(to + half + i, mask, _mm512_fnmadd_ps(low, s, _mm512_mul_ps(high, d)));
      } else {
        store_bf16(to + i, mask, _mm512_fnmadd_ps(high, s, _mm512_mul_ps(low, c)));
        store_bf16(to + half + i, mask, _mm512_fmadd_ps(low, t, _mm512_mul_ps(high, d)));
      }
    }
}

}  // namespace

extern "C" {

// Let products be of tiles, where there are any, or not; returns whether they are.
int32_t use_tiles(int32_t wanted) {
  uses_tiles = wanted && may_use_tiles();
  return uses_tiles;
}

// The value of GELU, or where a gradient is given the gradient of its input.
void gelu(const bf16* input, const bf16* gradient, bf16* output, int64_t count, int32_t is_tanh,
          int32_t threads) {
  constexpr int64_t kPart = 4096;
#pragma omp parallel for schedule(static) num_threads(threads) if (count > kPart)
  for (int64_t begin = 0; begin < count; begin += kPart) {
    const int64_t end = begin + kPart < count ? begin + kPart : count;
    if (gradient == nullptr)
      (is_tanh ? gelu_part<true, false> : gelu_part<false, false>)(input, gradient, output, begin, end);
    else
      (is_tanh ? gelu_part<true, true> : gelu_part<false, true>)(input, gradient, output, begin, end);
  }
}

// silu(gate) * up, rows of both so many entries apart; where a gradient is given, those of gate and up side by side.
void swiglu(const bf16* gate, const bf16* up, const bf16* gradient, bf16* output, int64_t rows, int64_t width,
            int64_t gate_step, int64_t up_step, int32_t threads) {
  const int64_t step = gradient == nullptr ? width : 2 * width;
#pragma omp parallel for schedule(static) num_threads(threads) if (rows > 8)
  for (int64_t row = 0; row < rows; ++row)
    swiglu_row(gate + row * gate_step, up + row * up_step, gradient == nullptr ? nullptr : gradient + row * width,
               output + row * step, width);
}

// weight * input / root of its mean square, and one over that root for each row; or, where a gradient is given, that
// of the input.
void rms_norm(const bf16* input, const bf16* weight, const bf16* gradient, bf16* output, float* scales, int64_t rows,
              int64_t width, float epsilon, int32_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (rows > 8)
  for (int64_t row = 0; row < rows; ++row) {
    const bf16* from = input + row * width;
    const bf16* slope = gradient == nullptr ? nullptr : gradient + row * width;
    if (gradient == nullptr) scales[row] = 1.0f / std::sqrt(sum_of(from, from, nullptr, width) / width + epsilon);
    const float scale = scales[row];
    const float pull = slope == nullptr ? 0.0f : sum_of(slope, from, weight, width) * scale * scale * scale / width;
    const __m512 factor = _mm512_set1_ps(scale), back = _mm512_set1_ps(pull);
    for (int64_t i = 0; i < width; i += kLanes) {
      const __mmask16 mask = first(width - i);
      const __m512 own = load_bf16(from + i, mask);
      __m512 found = _mm512_mul_ps(load_bf16(weight + i, mask), factor);
      found = _mm512_mul_ps(found, slope == nullptr ? own : load_bf16(slope + i, mask));
      store_bf16(output + row * width + i, mask, _mm512_fnmadd_ps(own, back, found));
    }
  }
}

// Heads of each place turned by its angles, or their gradient turned back; rows of the output so many entries apart.
void rotate(const bf16* from, const bf16* cosine, const bf16* sine, bf16* to, int64_t places, int64_t heads,
            int64_t size, int64_t place_step, int64_t head_step, int64_t to_step, int32_t is_back, int32_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (places > 8)
  for (int64_t place = 0; place < places; ++place)
    rotate_place(from + place * place_step, head_step, cosine + place * size, sine + place * size,
                 to + place * to_step, heads, size / 2, is_back);
}

// out: a row of heads * value_size for each query. tops: the largest score of each head and query times log2(e),
// then as many binary logarithms of sums of weights.
int attend(const Layout* at, const bf16* query, const bf16* key, const bf16* value, bf16* out,
           float* tops, int64_t queries) {
  const int64_t tasks = at->inputs * at->key_heads;
  const int64_t size = at->size, value_size = at->value_size, value_width = up(value_size, kLanes);
  int failed = 0;
#pragma omp parallel for schedule(dynamic, tasks_at_once(*at)) num_threads(at->threads) if (tasks > 1)
  for (int64_t number = 0; number < tasks; ++number) {
    const Task task(*at, number, query, key, value);
    const int64_t keys = task.keys, width = task.width;
    if (!scratch.begin(4 * (size / 2 * width + width / 2 * value_width) +
                    kQueryBlock * (4 * (width + value_width) + 2 * width) + 8 * 64)) {
#pragma omp atomic write
      failed = 1;
      continue;
    }
    uint32_t* turned_keys = scratch.take<uint32_t>(size / 2 * width);
    uint32_t* paired_values = scratch.take<uint32_t>(width / 2 * value_width);
    float* scores = scratch.take<float>(kQueryBlock * width);
    float* sums = scratch.take<float>(kQueryBlock * value_width);
    bf16* weights = scratch.take<bf16>(kQueryBlock * width);
    turn_pairs(task.key, at->key_place, keys, size, turned_keys);
    pair_rows(task.value, at->value_place, keys, value_size, paired_values);
    const __m512 factor = _mm512_set1_ps(at->scale * kLog2E);
    for (int64_t head = task.first_head; head < task.last_head; ++head)
      for (int64_t begin = 0; begin < task.count; begin += task.block) {
        const int64_t rows = task.count - begin < task.block ? task.count - begin : task.block;
        const int64_t place = task.start + begin;
        product(task.query + begin * at->query_place + head * at->query_head, at->query_place, turned_keys,
                width, rows, width, size / 2, scores, width, false);
        float shares[kQueryBlock];
        for (int64_t row = 0; row < rows; ++row) {
          const bf16* bias = task.bias(*at, head, begin + row);
          float top, sum;
          (bias == nullptr ? weigh<false> : weigh<true>)(scores + row * width, bias, keys, factor,
                                                         weights + row * width, &top, &sum);
          shares[row] = 1.0f / sum;
          tops[head * queries + place + row] = top;
          tops[(at->heads + head) * queries + place + row] = std::log2(sum);
        }
        product(weights, width, paired_values, value_width, rows, value_width, width / 2, sums, value_width,
                false);
        for (int64_t row = 0; row < rows; ++row)
          for (int64_t d = 0; d < value_size; d += kLanes)
            _mm256_mask_storeu_epi16(
                out + ((place + row) * at->heads + head) * value_size + d, first(value_size - d),
                to_bf16(_mm512_mul_ps(_mm512_load_ps(sums + row * value_width + d), _mm512_set1_ps(shares[row]))));
      }
  }
  return failed;
}

// Gradients of queries, keys and values; each has a row of all heads for each place, and rows begin so many entries
// apart. Where some places of each input are wanted, from a first on so many, no others are written; queries and keys
// are those of the same places, and `output` is what attention gave.
int attend_backward(const Layout* at, const bf16* query, const bf16* key, const bf16* value,
                    const float* tops, int64_t queries, const bf16* gradient, bf16* of_query,
                    bf16* of_key, bf16* of_value, int64_t query_step, int64_t key_step,
                    int64_t value_step, const int64_t* wanted_starts, const int64_t* wanted_counts,
                    const bf16* output) {
  const int64_t tasks = at->inputs * at->key_heads;
  const Backward back = {tops, queries, gradient, of_query, of_key, of_value, query_step, key_step, value_step};
  int failed = 0;
#pragma omp parallel for schedule(dynamic, tasks_at_once(*at)) num_threads(at->threads) if (tasks > 1)
  for (int64_t number = 0; number < tasks; ++number) {
    const Task task(*at, number, query, key, value);
    bool is_done;
    if (wanted_starts == nullptr) {
      is_done = bend(*at, task, back, {0, task.count, 0, task.keys, true, true}, nullptr);
    } else {
      const int64_t start = wanted_starts[task.input], count = wanted_counts[task.input];
      is_done = count == 0 || (bend(*at, task, back, {0, task.count, start, count, false, true}, output) &&
                               bend(*at, task, back, {start, count, 0, task.keys, true, false}, nullptr));
    }
    if (!is_done) {
#pragma omp atomic write
      failed = 1;
    }
  }
  return failed;
}

}  // extern "C"
