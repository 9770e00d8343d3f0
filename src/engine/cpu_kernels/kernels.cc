// Training kernels for MobileNet-like networks on a CPU: float32, NCHW, called through mindspore.ops.Custom ("aot").
//
// Every sum over a channel is formed by one thread in a fixed order, so results do not depend on the thread count.
// Shapes: N images, C channels, H x W pixels. Functions return 0, or kBadArguments when a tensor is not as described.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <vector>

namespace {

constexpr int kBadArguments = 1;
constexpr int kTaps = 9;
constexpr int64_t kChunk = 4096;  // floats that stay in the first-level cache between two passes

struct Arguments {
  int count;
  void** params;
  int* ndims;
  int64_t** shapes;
  const char** dtypes;

  float* operator[](int index) const { return static_cast<float*>(params[index]); }
};

using Shape = std::initializer_list<int64_t>;

// True if the arguments are float32 tensors of exactly these shapes.
bool Matches(const Arguments& args, std::initializer_list<Shape> expected) {
  if (args.count != static_cast<int>(expected.size())) return false;
  int index = 0;
  for (const Shape& shape : expected) {
    if (args.ndims[index] != static_cast<int>(shape.size())) return false;
    if (std::strcmp(args.dtypes[index], "float32") != 0) return false;
    if (!std::equal(shape.begin(), shape.end(), args.shapes[index])) return false;
    ++index;
  }
  return true;
}

bool HasImages(const Arguments& args) { return args.count > 0 && args.ndims[0] == 4; }

// Depthwise 3x3 convolution, padding 1. A plane is copied into a zero-bordered buffer and then treated as one long row: output p is a sum over taps of
// weight * plane[p + offset], including a few outputs between two rows that nobody reads. That keeps the vector
// units busy for 7 x 7 planes too and needs no border cases. With stride 2 the bordered plane is split into four
// phases (even / odd rows times even / odd columns), after which the offsets are contiguous again.

template <int kStride>
struct Layout {
  static constexpr int kPhases = kStride * kStride;
  int64_t h, w, out_h, out_w, pitch, phase_size, flat_size, margin;

  Layout(int64_t height, int64_t width)
      : h(height),
        w(width),
        out_h((height - 1) / kStride + 1),
        out_w((width - 1) / kStride + 1),
        pitch(kStride == 1 ? out_w + 2 : out_w + 1),
        phase_size((kStride == 1 ? out_h + 2 : out_h + 1) * pitch),
        flat_size((out_h - 1) * pitch + out_w),
        margin(Offset(kTaps - 1)) {}

  static constexpr int Phase(int tap) { return (tap / 3 % kStride) * kStride + tap % 3 % kStride; }
  int64_t Offset(int tap) const { return tap / 3 / kStride * pitch + tap % 3 / kStride; }

  // Copies a dense H x W plane into its phases; the borders of `phases` are zero and stay so.
  void Split(const float* plane, float* phases) const {
    for (int64_t y = 0; y < h; ++y) {
      const float* row = plane + y * w;
      float* base = phases + (y + 1) % kStride * kStride * phase_size + (y + 1) / kStride * pitch;
      if constexpr (kStride == 1) {
        std::memcpy(base + 1, row, w * sizeof(float));
      } else {
        float* even = base + 1;
        float* odd = base + phase_size;
        const int64_t pairs = w / 2;
#pragma omp simd
        for (int64_t i = 0; i < pairs; ++i) {
          odd[i] = row[2 * i];
          even[i] = row[2 * i + 1];
        }
        if (w % 2) odd[pairs] = row[w - 1];
      }
    }
  }

  // The inverse of Split.
  void Join(const float* phases, float* plane) const {
    for (int64_t y = 0; y < h; ++y) {
      float* row = plane + y * w;
      const float* base = phases + (y + 1) % kStride * kStride * phase_size + (y + 1) / kStride * pitch;
      if constexpr (kStride == 1) {
        std::memcpy(row, base + 1, w * sizeof(float));
      } else {
        const float* even = base + 1;
        const float* odd = base + phase_size;
        const int64_t pairs = w / 2;
#pragma omp simd
        for (int64_t i = 0; i < pairs; ++i) {
          row[2 * i] = odd[i];
          row[2 * i + 1] = even[i];
        }
        if (w % 2) row[w - 1] = odd[pairs];
      }
    }
  }

  void CopyRows(const float* from, int64_t from_pitch, float* to, int64_t to_pitch) const {
    for (int64_t y = 0; y < out_h; ++y) std::memcpy(to + y * to_pitch, from + y * from_pitch, out_w * sizeof(float));
  }
};

// out[p] = sum over taps of weights[tap] * sources[tap][p]
template <int kCount>
void WeightedSum(const std::array<const float*, kCount>& sources, const std::array<float, kCount>& weights,
                 float* __restrict out, int64_t size) {
#pragma omp simd
  for (int64_t p = 0; p < size; ++p) {
    float sum = weights[0] * sources[0][p];
    for (int tap = 1; tap < kCount; ++tap) sum += weights[tap] * sources[tap][p];
    out[p] = sum;
  }
}

template <int kStride>
void DepthwisePlane(const Layout<kStride>& layout, const float* phases, const float* weight, float* flat) {
  std::array<const float*, kTaps> sources;
  std::array<float, kTaps> weights;
  for (int tap = 0; tap < kTaps; ++tap) {
    sources[tap] = phases + layout.Phase(tap) * layout.phase_size + layout.Offset(tap);
    weights[tap] = weight[tap];
  }
  WeightedSum<kTaps>(sources, weights, flat, layout.flat_size);
}

template <int kStride>
int DepthwiseForward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const Layout<kStride> layout(h, w);
  if (!Matches(args, {{n, c, h, w}, {c, 1, 3, 3}, {n, c, layout.out_h, layout.out_w}})) return kBadArguments;
  const float* x = args[0];
  const float* weight = args[1];
  float* y = args[2];
#pragma omp parallel
  {
    std::vector<float> phases(layout.kPhases * layout.phase_size), flat(layout.flat_size);
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < n * c; ++plane) {
      layout.Split(x + plane * h * w, phases.data());
      DepthwisePlane(layout, phases.data(), weight + plane % c * kTaps, flat.data());
      layout.CopyRows(flat.data(), layout.pitch, y + plane * layout.out_h * layout.out_w, layout.out_w);
    }
  }
  return 0;
}

// grads[q] = sum over the taps of one phase of weight[tap] * dy[q - offset(tap)]
template <int kStride, int kPhase>
void PhaseGradient(const Layout<kStride>& layout, const float* dy, const float* weight, float* grads) {
  constexpr int kRows = kStride == 1 ? 3 : (kPhase / 2 ? 1 : 2);
  constexpr int kColumns = kStride == 1 ? 3 : (kPhase % 2 ? 1 : 2);
  std::array<const float*, kRows * kColumns> sources;
  std::array<float, kRows * kColumns> weights;
  int used = 0;
  for (int tap = 0; tap < kTaps; ++tap) {
    if (layout.Phase(tap) != kPhase) continue;
    sources[used] = dy - layout.Offset(tap);
    weights[used++] = weight[tap];
  }
  WeightedSum<kRows * kColumns>(sources, weights, grads + kPhase * layout.phase_size, layout.phase_size);
}

// sums[tap] += sum over p of dy[p] * plane[p + offset(tap)]; the gaps between the rows of dy are zero.
template <int kStride>
void AccumulateWeightGradient(const Layout<kStride>& layout, const float* phases, const float* dy, double* sums) {
  for (int row = 0; row < 3; ++row) {
    const int tap = 3 * row;
    const float* a = phases + layout.Phase(tap) * layout.phase_size + layout.Offset(tap);
    const float* b = phases + layout.Phase(tap + 1) * layout.phase_size + layout.Offset(tap + 1);
    const float* c = phases + layout.Phase(tap + 2) * layout.phase_size + layout.Offset(tap + 2);
    float sum_a = 0, sum_b = 0, sum_c = 0;
#pragma omp simd reduction(+ : sum_a, sum_b, sum_c)
    for (int64_t p = 0; p < layout.flat_size; ++p) {
      sum_a += dy[p] * a[p];
      sum_b += dy[p] * b[p];
      sum_c += dy[p] * c[p];
    }
    sums[tap] += sum_a;
    sums[tap + 1] += sum_b;
    sums[tap + 2] += sum_c;
  }
}

// x, weight, dy -> dx, dweight
template <int kStride>
int DepthwiseBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const Layout<kStride> layout(h, w);
  const int64_t out_size = layout.out_h * layout.out_w;
  if (!Matches(args, {{n, c, h, w}, {c, 1, 3, 3}, {n, c, layout.out_h, layout.out_w}, {n, c, h, w}, {c, 1, 3, 3}})) {
    return kBadArguments;
  }
#pragma omp parallel
  {
    std::vector<float> phases(layout.kPhases * layout.phase_size), grads(phases.size());
    std::vector<float> padded_dy(layout.margin + layout.phase_size);
    float* dy = padded_dy.data() + layout.margin;
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < c; ++channel) {
      const float* weight = args[1] + channel * kTaps;
      double sums[kTaps] = {};
      for (int64_t image = 0; image < n; ++image) {
        const int64_t plane = image * c + channel;
        layout.Split(args[0] + plane * h * w, phases.data());
        layout.CopyRows(args[2] + plane * out_size, layout.out_w, dy, layout.pitch);
        AccumulateWeightGradient(layout, phases.data(), dy, sums);
        PhaseGradient<kStride, 0>(layout, dy, weight, grads.data());
        if constexpr (kStride == 2) {
          PhaseGradient<kStride, 1>(layout, dy, weight, grads.data());
          PhaseGradient<kStride, 2>(layout, dy, weight, grads.data());
          PhaseGradient<kStride, 3>(layout, dy, weight, grads.data());
        }
        layout.Join(grads.data(), args[3] + plane * h * w);
      }
      std::copy(sums, sums + kTaps, args[4] + channel * kTaps);
    }
  }
  return 0;
}

// Pointwise (1x1) convolution. Three matrix products with the same inner tile: kRows x kColumns sums stay in registers while the depth is walked.
// The wide operand is packed as [depth][kColumns]; a column is a pixel of any image, so small planes waste nothing.

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 8, kVectors = 3;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 4, kVectors = 3;
#else
constexpr int kLanes = 4, kRows = 4, kVectors = 4;
#endif
constexpr int kColumns = kLanes * kVectors;
constexpr int64_t kPanelFloats = 1 << 16;  // packed data per thread; fits the second-level cache

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vector Load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void Store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }

// sums[row][column] (+)= sum over k of rows[row][k] * panel[k][column]; successive k are kStep apart in `rows` and
// kColumns in `panel`. kAdd: sums hold earlier terms.
template <int64_t kStep, bool kAdd>
inline void Tile(const float* const (&rows)[kRows], const float* panel, int64_t depth, float* sums, int64_t pitch) {
  Vector acc[kRows][kVectors] = {};
  if constexpr (kAdd) {
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) acc[r][v] = Load(sums + r * pitch + v * kLanes);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = Load(panel + k * kColumns + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const float factor = rows[r][k * kStep];
      for (int v = 0; v < kVectors; ++v) acc[r][v] += column[v] * factor;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) Store(sums + r * pitch + v * kLanes, acc[r][v]);
  }
}

// Walks columns [first, last) of all images in runs that lie within one image: visit(image, pixel, length, done).
template <typename Visit>
inline void ForEachRun(int64_t first, int64_t last, int64_t size, Visit visit) {
  for (int64_t at = first; at < last;) {
    const int64_t image = at / size, pixel = at % size, length = std::min(size - pixel, last - at);
    visit(image, pixel, length, at - first);
    at += length;
  }
}

// The constant size lets the compiler copy whole panel rows without a call.
inline void CopyUpToPanel(const float* from, int64_t length, float* to) {
  if (length == kColumns) {
    std::memcpy(to, from, kColumns * sizeof(float));
  } else {
    std::memcpy(to, from, length * sizeof(float));
  }
}

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// out (N, rows, size) = matrix (rows, depth) times in (N, depth, size), image by image; the matrix comes packed as
// [row block][depth][kRows], padded with zeros.
void Multiply(const float* packed, const float* in, float* out, int64_t n, int64_t rows, int64_t depth, int64_t size) {
  const int64_t columns = n * size, group = std::clamp<int64_t>(kPanelFloats / (depth * kColumns), 1, 8);
  const int64_t block = group * kColumns;
#pragma omp parallel
  {
    std::vector<float> panels(depth * block), tile(kRows * kColumns);
#pragma omp for schedule(static)
    for (int64_t first = 0; first < columns; first += block) {
      const int64_t last = std::min(columns, first + block);
      for (int64_t k = 0; k < depth; ++k) {
        ForEachRun(first, last, size, [&](int64_t image, int64_t pixel, int64_t length, int64_t done) {
          const float* from = in + (image * depth + k) * size + pixel;
          for (int64_t moved = 0; moved < length;) {
            const int64_t at = done + moved, within = at % kColumns;
            const int64_t part = std::min(length - moved, kColumns - within);
            CopyUpToPanel(from + moved, part, &panels[(at / kColumns * depth + k) * kColumns + within]);
            moved += part;
          }
        });
      }
      for (int64_t row = 0; row < rows; row += kRows) {
        const int64_t used = std::min<int64_t>(kRows, rows - row);
        const float* pointers[kRows];
        for (int r = 0; r < kRows; ++r) pointers[r] = packed + row * depth + r;
        for (int64_t start = first; start < last; start += kColumns) {
          const float* panel = &panels[(start - first) * depth];
          const int64_t end = std::min(last, start + kColumns), pixel = start % size;
          if (used == kRows && end - start == kColumns && pixel + kColumns <= size) {
            float* to = out + (start / size * rows + row) * size + pixel;
            Tile<kRows, false>(pointers, panel, depth, to, size);
            continue;
          }
          Tile<kRows, false>(pointers, panel, depth, tile.data(), kColumns);
          ForEachRun(start, end, size, [&](int64_t image, int64_t pixel, int64_t length, int64_t done) {
            for (int64_t r = 0; r < used; ++r) {
              std::memcpy(out + (image * rows + row + r) * size + pixel, &tile[r * kColumns + done],
                          length * sizeof(float));
            }
          });
        }
      }
    }
  }
}

// Packs a (rows, depth) matrix with the given strides for Multiply.
std::vector<float> PackMatrix(const float* matrix, int64_t rows, int64_t depth, int64_t row_stride, int64_t stride) {
  std::vector<float> packed(CeilDiv(rows, kRows) * kRows * depth);
  for (int64_t row = 0; row < rows; ++row) {
    float* to = packed.data() + row / kRows * kRows * depth + row % kRows;
    for (int64_t k = 0; k < depth; ++k) to[k * kRows] = matrix[row * row_stride + k * stride];
  }
  return packed;
}

constexpr int64_t kStrip = 16;
constexpr int64_t kDepthBlock = 256;  // pixels that are packed at a time

// Transposes `columns` rows of up to kStrip floats into [k][kColumns]; a strip of the panel stays in the L1 cache.
inline void PackStrip(const float* from, int64_t pitch, int64_t columns, int64_t depth, float* to) {
  if (depth == kStrip) {
    for (int64_t column = 0; column < columns; ++column) {
      for (int64_t k = 0; k < kStrip; ++k) to[k * kColumns + column] = from[column * pitch + k];
    }
    return;
  }
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t k = 0; k < depth; ++k) to[k * kColumns + column] = from[column * pitch + k];
  }
}

constexpr int64_t kDotSize = 512;  // pixels per plane from which AccumulateDots is faster
constexpr int kDotRows = kRows / 2, kDotColumns = kLanes == 16 ? 6 : 4;

// sums[i * pitch + j] += sum over k of a[i][k] * b[j][k]; vectorised along k, so nothing has to be packed.
inline void DotTile(const float* const (&a)[kDotRows], const float* const (&b)[kDotColumns], int64_t depth, float* sums,
                    int64_t pitch) {
  Vector acc[kDotRows][kDotColumns] = {};
  const int64_t whole = depth / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) {
    Vector left[kDotRows];
    for (int i = 0; i < kDotRows; ++i) left[i] = Load(a[i] + k);
    for (int j = 0; j < kDotColumns; ++j) {
      const Vector right = Load(b[j] + k);
      for (int i = 0; i < kDotRows; ++i) acc[i][j] += left[i] * right;
    }
  }
  for (int i = 0; i < kDotRows; ++i) {
    for (int j = 0; j < kDotColumns; ++j) {
      float lanes[kLanes];
      Store(lanes, acc[i][j]);
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
      for (int64_t k = whole; k < depth; ++k) sum += a[i][k] * b[j][k];
      sums[i * pitch + j] += sum;
    }
  }
}

// The same contract as AccumulateProducts, for planes so large that summing the lanes at the end costs little.
void AccumulateDots(const float* a, const float* b, float* products, int64_t first, int64_t last, int64_t narrow,
                    int64_t wide, int64_t size, int64_t panel) {
  const int64_t pitch = CeilDiv(wide, kColumns) * kColumns, depth_block = 1024;
  for (int64_t image = first; image < last; ++image) {
    for (int64_t start = 0; start < size; start += depth_block) {
      const int64_t depth = std::min(depth_block, size - start);
      for (int64_t column = panel * kColumns; column < std::min(wide, (panel + 1) * kColumns); column += kDotColumns) {
        // Rows and columns past the end repeat the last one; nobody reads their sums.
        const float* right[kDotColumns];
        for (int j = 0; j < kDotColumns; ++j) {
          right[j] = b + (image * wide + std::min(column + j, wide - 1)) * size + start;
        }
        for (int64_t row = 0; row < narrow; row += kDotRows) {
          const float* left[kDotRows];
          for (int i = 0; i < kDotRows; ++i) {
            left[i] = a + (image * narrow + std::min(row + i, narrow - 1)) * size + start;
          }
          DotTile(left, right, depth, products + row * pitch + column, pitch);
        }
      }
    }
  }
}

// products (narrow, wide) += sum over images [first, last) and pixels of a[narrow] * b[wide], for one panel of wide.
void AccumulateProducts(const float* a, const float* b, float* products, int64_t first, int64_t last, int64_t narrow,
                        int64_t wide, int64_t size, int64_t panel, float* packed) {
  const int64_t used = std::min<int64_t>(kColumns, wide - panel * kColumns), pitch = CeilDiv(wide, kColumns) * kColumns;
  for (int64_t image = first; image < last; ++image) {
    for (int64_t start = 0; start < size; start += kDepthBlock) {
      const int64_t depth = std::min(kDepthBlock, size - start);
      const float* from = b + (image * wide + panel * kColumns) * size + start;
      for (int64_t k = 0; k < depth; k += kStrip) {
        PackStrip(from + k, size, used, std::min(kStrip, depth - k), packed + k * kColumns);
      }
      for (int64_t row = 0; row < narrow; row += kRows) {
        const float* rows[kRows];  // rows past the end repeat the last one; nobody reads their sums
        for (int r = 0; r < kRows; ++r) rows[r] = a + (image * narrow + std::min(row + r, narrow - 1)) * size + start;
        Tile<1, true>(rows, packed, depth, products + row * pitch + panel * kColumns, pitch);
      }
    }
  }
}

// result[narrow * narrow_stride + wide * wide_stride] = sum over images and pixels of a[narrow] * b[wide].
// The images are cut into slices whose number depends on the shapes alone, so the result does not depend on threads.
void Products(const float* a, const float* b, float* result, int64_t n, int64_t narrow, int64_t wide, int64_t size,
              int64_t narrow_stride, int64_t wide_stride) {
  const int64_t panels = CeilDiv(wide, kColumns), pitch = panels * kColumns;
  const int64_t slices = std::min(n, CeilDiv(32, panels)), slice_floats = CeilDiv(narrow, kRows) * kRows * pitch;
  std::vector<float> products(slices * slice_floats);
#pragma omp parallel
  {
    std::vector<float> packed(kDepthBlock * kColumns);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < slices * panels; ++item) {
      const int64_t slice = item / panels, panel = item % panels;
      const int64_t first = slice * n / slices, last = (slice + 1) * n / slices;
      float* sums = products.data() + slice * slice_floats;
      if (size >= kDotSize) {
        AccumulateDots(a, b, sums, first, last, narrow, wide, size, panel);
      } else {
        AccumulateProducts(a, b, sums, first, last, narrow, wide, size, panel, packed.data());
      }
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < narrow; ++row) {
      for (int64_t column = 0; column < wide; ++column) {
        float sum = 0;
        for (int64_t slice = 0; slice < slices; ++slice) sum += products[slice * slice_floats + row * pitch + column];
        result[row * narrow_stride + column * wide_stride] = sum;
      }
    }
  }
}

// x, weight -> y
int ForwardPointwise(const Arguments& args) {
  if (!HasImages(args) || args.count != 3) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const int64_t out = args.shapes[1][0];
  if (!Matches(args, {{n, c, h, w}, {out, c, 1, 1}, {n, out, h, w}})) return kBadArguments;
  Multiply(PackMatrix(args[1], out, c, c, 1).data(), args[0], args[2], n, out, c, h * w);
  return 0;
}

// x, weight, dy -> dx, dweight
int BackwardPointwise(const Arguments& args) {
  if (!HasImages(args) || args.count != 5) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const int64_t out = args.shapes[1][0];
  if (!Matches(args, {{n, c, h, w}, {out, c, 1, 1}, {n, out, h, w}, {n, c, h, w}, {out, c, 1, 1}})) {
    return kBadArguments;
  }
  Multiply(PackMatrix(args[1], c, out, 1, c).data(), args[2], args[3], n, c, out, h * w);
  if (out > c) {
    Products(args[0], args[2], args[4], n, c, out, h * w, 1, c);
  } else {
    Products(args[2], args[0], args[4], n, out, c, h * w, c, 1);
  }
  return 0;
}

// Batch normalisation, optionally followed by ReLU6. Both comparisons are false for NaN, so NaN passes through.
inline float Clamp6(float value) {
  value = value < 0.0f ? 0.0f : value;
  return value > 6.0f ? 6.0f : value;
}

struct Moments {
  double count = 0, mean = 0, squares = 0;  // squares: sum of squared deviations from the mean

  // Adds `size` values; two passes over a cached chunk, merged by the formula of Chan et al.
  void Add(const float* x, int64_t size) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; ++i) sum += x[i];
    const double chunk_mean = static_cast<double>(sum) / size;
    const float centre = static_cast<float>(chunk_mean);
    float deviation = 0, squared = 0;
#pragma omp simd reduction(+ : deviation, squared)
    for (int64_t i = 0; i < size; ++i) {
      const float distance = x[i] - centre;
      deviation += distance;
      squared += distance * distance;
    }
    // The second pass also corrects the rounding of the first sum.
    const double exact_mean = centre + static_cast<double>(deviation) / size;
    const double exact_squares = squared - static_cast<double>(deviation) * deviation / size;
    const double total = count + size, delta = exact_mean - mean;
    mean += delta * size / total;
    squares += exact_squares + delta * delta * count * size / total;
    count = total;
  }
};

struct Images {
  int64_t n, c, size;  // size = H * W

  explicit Images(const Arguments& args)
      : n(args.shapes[0][0]), c(args.shapes[0][1]), size(args.shapes[0][2] * args.shapes[0][3]) {}

  // Calls work(offset, length) for every chunk of a channel, in memory order.
  template <typename Work>
  void ForEachChunk(int64_t channel, Work work) const {
    for (int64_t image = 0; image < n; ++image) {
      const int64_t first = (image * c + channel) * size;
      for (int64_t at = 0; at < size; at += kChunk) work(first + at, std::min(kChunk, size - at));
    }
  }
};

struct Affine {
  float mean, inverse_std, gamma, beta;

  float Normalized(float x) const { return (x - mean) * inverse_std; }
  float Output(float x) const { return (x - mean) * (inverse_std * gamma) + beta; }
};

template <bool kReLU6>
void NormalizeChannel(const Images& images, int64_t channel, Affine affine, const float* x, float* y) {
  images.ForEachChunk(channel, [=](int64_t offset, int64_t length) {
    const float* from = x + offset;
    float* __restrict to = y + offset;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float value = affine.Output(from[i]);
      to[i] = kReLU6 ? Clamp6(value) : value;
    }
  });
}

// x, gamma, beta, moving mean, moving variance, (eps, momentum)
//   -> y, batch mean, batch inverse standard deviation, new moving mean, new moving variance
template <bool kReLU6>
int BatchNormTrain(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {2}, {n, c, h, w}, {c}, {c}, {c}, {c}})) return kBadArguments;
  const double eps = args[5][0], momentum = args[5][1];
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    Moments moments;
    images.ForEachChunk(channel, [&](int64_t offset, int64_t length) { moments.Add(args[0] + offset, length); });
    const double variance = moments.squares / moments.count;
    const Affine affine = {static_cast<float>(moments.mean), static_cast<float>(1.0 / std::sqrt(variance + eps)),
                           args[1][channel], args[2][channel]};
    NormalizeChannel<kReLU6>(images, channel, affine, args[0], args[6]);
    args[7][channel] = affine.mean;
    args[8][channel] = affine.inverse_std;
    args[9][channel] = static_cast<float>(momentum * args[3][channel] + (1.0 - momentum) * moments.mean);
    // The stock operator keeps the unbiased variance. A batch of one value has none; 0 keeps NaN out of the average.
    const double unbiased = moments.squares / std::max(moments.count - 1.0, 1.0);
    args[10][channel] = static_cast<float>(momentum * args[4][channel] + (1.0 - momentum) * unbiased);
  }
  return 0;
}

// x, gamma, beta, moving mean, moving variance, (eps, momentum) -> y
template <bool kReLU6>
int BatchNormInfer(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {2}, {n, c, h, w}})) return kBadArguments;
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const float inverse_std = 1.0f / std::sqrt(args[4][channel] + args[5][0]);
    const Affine affine = {args[3][channel], inverse_std, args[1][channel], args[2][channel]};
    NormalizeChannel<kReLU6>(images, channel, affine, args[0], args[6]);
  }
  return 0;
}

// dy where ReLU6 lets it pass, with the stock operator's limits (6 itself passes, 0 does not). The value before ReLU6
// is computed again, by the same expression as in the forward kernel, instead of being kept.
template <bool kReLU6>
inline float Passed(float dy, float x, const Affine& affine) {
  if constexpr (!kReLU6) return dy;
  const float value = affine.Output(x);
  return value > 0.0f && value <= 6.0f ? dy : 0.0f;
}

// Gradients of one channel. kBatch: mean and variance were those of the batch, so x acts through them as well.
template <bool kReLU6, bool kBatch>
void BackwardChannel(const Images& images, int64_t channel, Affine affine, const float* x, const float* dy,
                     float* dx, float* dgamma, float* dbeta) {
  double sum = 0, sum_normalized = 0;
  images.ForEachChunk(channel, [&](int64_t offset, int64_t length) {
    const float* value = x + offset;
    const float* grad = dy + offset;
    float part = 0, part_normalized = 0;
#pragma omp simd reduction(+ : part, part_normalized)
    for (int64_t i = 0; i < length; ++i) {
      const float normalized = affine.Normalized(value[i]);
      const float passed = Passed<kReLU6>(grad[i], value[i], affine);
      part += passed;
      part_normalized += passed * normalized;
    }
    sum += part;
    sum_normalized += part_normalized;
  });
  *dbeta = static_cast<float>(sum);
  *dgamma = static_cast<float>(sum_normalized);
  const double count = static_cast<double>(images.n) * images.size;
  const float mean_grad = kBatch ? static_cast<float>(sum / count) : 0.0f;
  const float mean_product = kBatch ? static_cast<float>(sum_normalized / count) : 0.0f;
  const float scale = affine.gamma * affine.inverse_std;
  images.ForEachChunk(channel, [=](int64_t offset, int64_t length) {
    const float* value = x + offset;
    const float* grad = dy + offset;
    float* __restrict out = dx + offset;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float normalized = affine.Normalized(value[i]);
      const float passed = Passed<kReLU6>(grad[i], value[i], affine);
      out[i] = kBatch ? scale * (passed - mean_grad - normalized * mean_product) : scale * passed;
    }
  });
}

// x, gamma, beta, batch mean, batch inverse standard deviation, dy -> dx, dgamma, dbeta
template <bool kReLU6>
int BatchNormTrainBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {n, c, h, w}, {n, c, h, w}, {c}, {c}})) return kBadArguments;
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const Affine affine = {args[3][channel], args[4][channel], args[1][channel], args[2][channel]};
    BackwardChannel<kReLU6, true>(images, channel, affine, args[0], args[5], args[6], args[7] + channel,
                                  args[8] + channel);
  }
  return 0;
}

// x, gamma, beta, moving mean, moving variance, (eps, momentum), dy -> dx, dgamma, dbeta
template <bool kReLU6>
int BatchNormInferBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {2}, {n, c, h, w}, {n, c, h, w}, {c}, {c}})) {
    return kBadArguments;
  }
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const float inverse_std = 1.0f / std::sqrt(args[4][channel] + args[5][0]);
    const Affine affine = {args[3][channel], inverse_std, args[1][channel], args[2][channel]};
    BackwardChannel<kReLU6, false>(images, channel, affine, args[0], args[6], args[7], args[8] + channel,
                                   args[9] + channel);
  }
  return 0;
}

// Fake quantisation: x is moved to the nearest (q - zero_point) * scale with a whole q from low to high, in float32.
// A row is what shares one scale: a filter of a weight tensor, or the whole tensor.
struct Grid {
  float scale, zero_point, low, high;

  float Whole(float x) const { return std::nearbyint(x / scale) + zero_point; }
  bool Holds(float whole) const { return whole >= low && whole <= high; }
  // Both comparisons are false for NaN, so NaN passes through.
  float Nearest(float whole) const {
    whole = whole < low ? low : whole;
    return whole > high ? high : whole;
  }
  float Snapped(float x) const { return (Nearest(Whole(x)) - zero_point) * scale; }
};

// The grid that spans a range and 0, by the arithmetic of grid_over in quantiser.py.
Grid GridOverRange(float least, float greatest, float low, float high, bool symmetric) {
  least = std::min(least, 0.0f);
  greatest = std::max(greatest, 0.0f);
  const float steps = high - low, smallest = std::numeric_limits<float>::epsilon();
  if (symmetric) return {std::max(std::max(-least, greatest) * 2.0f / steps, smallest), 0.0f, low, high};
  const float scale = std::max((greatest - least) / steps, smallest);
  return {scale, std::min(std::max(low - std::nearbyint(least / scale), low), high), low, high};
}

struct Rows {
  int64_t rows, size;

  // Calls work(item, row, offset, length); one item is never shared by threads, and items depend on the shape alone.
  template <typename Work>
  void ForEachItem(Work work) const {
    const int64_t parts = Parts();
#pragma omp parallel for schedule(static)
    for (int64_t item = 0; item < rows * parts; ++item) {
      const int64_t row = item / parts, first = item % parts * kItem;
      work(item, row, row * size + first, std::min(kItem, size - first));
    }
  }
  int64_t Parts() const { return CeilDiv(size, kItem); }

  static constexpr int64_t kItem = 1 << 15;
};

int64_t SizeOf(const Arguments& args, int index) {
  return std::accumulate(args.shapes[index], args.shapes[index] + args.ndims[index], int64_t{1}, std::multiplies<>());
}

bool HasSize(const Arguments& args, int index, int64_t size) {
  return args.ndims[index] == 1 && SizeOf(args, index) == size;
}

// y = x on the grids grid_of(row); extremes = (least, greatest x).
template <typename GridOfRow>
void SnapRows(const Rows& rows, GridOfRow grid_of, const float* x, float* y, float* extremes) {
  const int64_t items = rows.rows * rows.Parts();
  std::vector<float> least(items), greatest(items);
  rows.ForEachItem([&](int64_t item, int64_t row, int64_t offset, int64_t length) {
    const Grid grid = grid_of(row);
    const float* from = x + offset;
    float* __restrict to = y + offset;
    float low = from[0], high = from[0];
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t i = 0; i < length; ++i) {
      low = std::min(low, from[i]);
      high = std::max(high, from[i]);
      to[i] = grid.Snapped(from[i]);
    }
    least[item] = low;
    greatest[item] = high;
  });
  extremes[0] = *std::min_element(least.begin(), least.end());
  extremes[1] = *std::max_element(greatest.begin(), greatest.end());
}

// x, range (least, greatest), (low, high, symmetric, decay) -> y, range moved towards that of x, scale, zero point.
// The grid spans the range from before.
int RangeFakeQuantizeForward(const Arguments& args) {
  if (args.count != 7 || !HasSize(args, 1, 2) || !HasSize(args, 2, 4) || SizeOf(args, 0) < 1) return kBadArguments;
  const float *range = args[1], *settings = args[2], decay = settings[3];
  const Grid grid = GridOverRange(range[0], range[1], settings[0], settings[1], settings[2] != 0);
  float extremes[2];
  const float before[2] = {range[0], range[1]};
  SnapRows(Rows{1, SizeOf(args, 0)}, [&](int64_t) { return grid; }, args[0], args[3], extremes);
  for (int side : {0, 1}) args[4][side] = before[side] * decay + extremes[side] * (1.0f - decay);
  args[5][0] = grid.scale;
  args[6][0] = grid.zero_point;
  return 0;
}

// A weight (channels, ...) times its batch normalisation's factor gamma / std, and the grids that span the product.
struct FoldedWeight {
  int64_t channels, size;
  std::vector<float> product;
  std::vector<Grid> grids;

  // settings: low, high, symmetric, per channel, ...
  FoldedWeight(const Arguments& args, const float* gamma, const float* inverse_std, const float* settings)
      : channels(args.shapes[0][0]), size(SizeOf(args, 0) / channels), product(channels * size), grids(channels) {
    std::vector<float> least(channels), greatest(channels);
#pragma omp parallel for schedule(static)
    for (int64_t channel = 0; channel < channels; ++channel) {
      const float factor = gamma[channel] * inverse_std[channel];
      const float* from = args[0] + channel * size;
      float* to = &product[channel * size];
      for (int64_t i = 0; i < size; ++i) to[i] = from[i] * factor;
      least[channel] = *std::min_element(to, to + size);
      greatest[channel] = *std::max_element(to, to + size);
    }
    const float all_least = *std::min_element(least.begin(), least.end());
    const float all_greatest = *std::max_element(greatest.begin(), greatest.end());
    const bool symmetric = settings[2] != 0, own = settings[3] != 0;
    for (int64_t channel = 0; channel < channels; ++channel) {
      grids[channel] = GridOverRange(own ? least[channel] : all_least, own ? greatest[channel] : all_greatest,
                                     settings[0], settings[1], symmetric);
    }
  }
};

// A factor to divide by: 1 for a channel that batch normalisation switched off.
float Divisor(float factor) { return factor == 0 ? 1.0f : factor; }

bool HasFilters(const Arguments& args) { return args.count > 2 && args.ndims[0] > 1 && SizeOf(args, 0) > 0; }

// weight, gamma, moving variance, (low, high, symmetric, per channel, eps) -> (weight * factor on its grid) / factor,
// 1 / std; factor = gamma / std
int FoldedFakeQuantizeForward(const Arguments& args) {
  if (!HasFilters(args) || args.count != 6 || !HasSize(args, 3, 5)) return kBadArguments;
  const int64_t channels = args.shapes[0][0];
  if (!HasSize(args, 1, channels) || !HasSize(args, 2, channels)) return kBadArguments;
  float* inverse_std = args[5];
  for (int64_t channel = 0; channel < channels; ++channel) {
    inverse_std[channel] = 1.0f / std::sqrt(args[2][channel] + args[3][4]);
  }
  const FoldedWeight folded(args, args[1], inverse_std, args[3]);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < channels; ++channel) {
    const Grid grid = folded.grids[channel];
    const float divisor = Divisor(args[1][channel] * inverse_std[channel]);
    const float* from = &folded.product[channel * folded.size];
    float* __restrict to = args[4] + channel * folded.size;
    for (int64_t i = 0; i < folded.size; ++i) to[i] = grid.Snapped(from[i]) / divisor;
  }
  return 0;
}

// weight, gamma, 1 / std, settings, dy -> dweight, dgamma. Rounding counts as the identity, the grids as constants.
int FoldedFakeQuantizeBackward(const Arguments& args) {
  if (!HasFilters(args) || args.count != 7 || !HasSize(args, 3, 5)) return kBadArguments;
  const int64_t channels = args.shapes[0][0];
  if (!HasSize(args, 1, channels) || !HasSize(args, 2, channels)) return kBadArguments;
  const FoldedWeight folded(args, args[1], args[2], args[3]);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < channels; ++channel) {
    const Grid grid = folded.grids[channel];
    const float factor = args[1][channel] * args[2][channel], divisor = Divisor(factor), share = factor / divisor;
    const int64_t offset = channel * folded.size;
    double dfactor = 0;
    for (int64_t i = offset; i < offset + folded.size; ++i) {
      const float product = folded.product[i], dy = args[4][i];
      const float inside = grid.Holds(grid.Whole(product)) ? 1.0f : 0.0f;
      args[5][i] = inside * share * dy;
      // Of (product on its grid) / factor; a factor of 0 is not divided by.
      const float through_divisor = factor == 0 ? 0.0f : grid.Snapped(product) / (divisor * divisor);
      dfactor += dy * (inside * args[0][i] / divisor - through_divisor);
    }
    args[6][channel] = static_cast<float>(dfactor * args[2][channel]);
  }
  return 0;
}

// Arguments of both kernels begin with x, scale (rows), zero point (rows), (low, high).
bool ReadRows(const Arguments& args, Rows* rows) {
  if (args.count < 4 || args.ndims[1] != 1 || args.ndims[2] != 1) return false;
  rows->rows = args.shapes[1][0];
  if (rows->rows != args.shapes[2][0] || args.ndims[3] != 1 || args.shapes[3][0] < 2) return false;
  if (rows->rows != 1 && rows->rows != args.shapes[0][0]) return false;
  rows->size = SizeOf(args, 0) / rows->rows;
  return rows->size > 0;
}

Grid GridOf(const Arguments& args, int64_t row) { return {args[1][row], args[2][row], args[3][0], args[3][1]}; }

// x, scale, zero point, (low, high) -> y, (least, greatest x)
int FakeQuantizeForward(const Arguments& args) {
  Rows rows;
  if (!ReadRows(args, &rows) || args.count != 6) return kBadArguments;
  SnapRows(rows, [&](int64_t row) { return GridOf(args, row); }, args[0], args[4], args[5]);
  return 0;
}

// x, scale, zero point, (low, high), dy -> dx, dscale. Rounding counts as the identity; outside of the grid dx is 0.
int FakeQuantizeBackward(const Arguments& args) {
  Rows rows;
  if (!ReadRows(args, &rows) || args.count != 7) return kBadArguments;
  const int64_t parts = rows.Parts();
  std::vector<double> sums(rows.rows * parts);
  rows.ForEachItem([&](int64_t item, int64_t row, int64_t offset, int64_t length) {
    const Grid grid = GridOf(args, row);
    const float* x = args[0] + offset;
    const float* dy = args[4] + offset;
    float* __restrict dx = args[5] + offset;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < length; ++i) {
      const float whole = grid.Whole(x[i]);
      const bool inside = grid.Holds(whole);
      dx[i] = inside ? dy[i] : 0.0f;
      sum += dy[i] * (grid.Nearest(whole) - grid.zero_point - (inside ? x[i] / grid.scale : 0.0f));
    }
    sums[item] = sum;
  });
  for (int64_t row = 0; row < rows.rows; ++row) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += sums[row * parts + part];
    args[6][row] = static_cast<float>(sum);
  }
  return 0;
}

}  // namespace

// The names MindSpore looks up. Its last two arguments (stream, extra) mean nothing on a CPU.
#define EXPORT(name, kernel)                                                                                    \
  extern "C" int name(int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void*, void*) { \
    return kernel({nparam, params, ndims, shapes, dtypes});                                                     \
  }

EXPORT(DepthwiseForwardS1, DepthwiseForward<1>)
EXPORT(DepthwiseForwardS2, DepthwiseForward<2>)
EXPORT(DepthwiseBackwardS1, DepthwiseBackward<1>)
EXPORT(DepthwiseBackwardS2, DepthwiseBackward<2>)
EXPORT(PointwiseForward, ForwardPointwise)
EXPORT(PointwiseBackward, BackwardPointwise)
EXPORT(BatchNormTrainLinear, BatchNormTrain<false>)
EXPORT(BatchNormTrainReLU6, BatchNormTrain<true>)
EXPORT(BatchNormTrainBackwardLinear, BatchNormTrainBackward<false>)
EXPORT(BatchNormTrainBackwardReLU6, BatchNormTrainBackward<true>)
EXPORT(BatchNormInferLinear, BatchNormInfer<false>)
EXPORT(BatchNormInferReLU6, BatchNormInfer<true>)
EXPORT(BatchNormInferBackwardLinear, BatchNormInferBackward<false>)
EXPORT(BatchNormInferBackwardReLU6, BatchNormInferBackward<true>)
EXPORT(FakeQuantForward, FakeQuantizeForward)
EXPORT(FakeQuantBackward, FakeQuantizeBackward)
EXPORT(RangeFakeQuantForward, RangeFakeQuantizeForward)
EXPORT(FoldedFakeQuantForward, FoldedFakeQuantizeForward)
EXPORT(FoldedFakeQuantBackward, FoldedFakeQuantizeBackward)
