// Softmax attention on maps: queries (N, C, H, W), keys and values (N, 2 C, h, w), heads of d = C / heads channels
// each.
//
// The weights, L x M per head with L = H * W queries and M = h * w keys, are never stored: the forward kernel keeps the
// logarithm of each query's sum, and the backward kernel computes the weights of a block of queries again from it
// (FlashAttention, https://arxiv.org/abs/2205.14135). A block is kColumns queries, one per lane, so that maxima and
// sums over the keys stay within lanes.

#include <algorithm>
#include <cmath>
#include <vector>

#include "matrix.h"
#include "operators.h"

namespace {

constexpr int kPair = 2 * kLanes;  // channels at a time in the gradients of keys and values

struct Sizes {
  int64_t n, c, queries, keys, heads, d, rows, pairs, blocks;

  // rows: keys, rounded up to whole tiles; pairs: d in units of kPair; blocks: of queries
  template <typename Args>
  explicit Sizes(const Args& args)
      : n(args.n),
        c(args.c),
        queries(args.h * args.w),
        keys(args.key_h * args.key_w),
        heads(args.heads),
        d(c / heads),
        rows(CeilDiv(keys, kRows) * kRows),
        pairs(CeilDiv(d, kPair)),
        blocks(CeilDiv(queries, kColumns)) {}

  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(d)); }
  int64_t Query(int64_t item) const { return (item / heads * c + item % heads * d) * queries; }
  int64_t Key(int64_t item) const { return (item / heads * 2 * c + item % heads * d) * keys; }
  int64_t Value(int64_t item) const { return Key(item) + c * keys; }
  int64_t Width(int64_t block) const { return std::min<int64_t>(kColumns, queries - block * kColumns); }
};

// panel [d][kColumns] = factor * one block of a (d, queries) matrix; columns past the end are 0.
void PackBlock(const float* from, const Sizes& s, int64_t block, float factor, float* panel) {
  const int64_t width = s.Width(block);
  for (int64_t i = 0; i < s.d; ++i) {
    const float* row = from + i * s.queries + block * kColumns;
    float* to = panel + i * kColumns;
    for (int64_t column = 0; column < width; ++column) to[column] = row[column] * factor;
    std::fill(to + width, to + kColumns, 0.0f);
  }
}

// out [rows][kColumns] = packed matrix (rows, depth) times panel [depth][kColumns]
void TimesPanel(const float* packed, const float* panel, int64_t rows, int64_t depth, float* out) {
  for (int64_t row = 0; row < rows; row += kRows) {
    const float* pointers[kRows];
    for (int r = 0; r < kRows; ++r) pointers[r] = packed + row * depth + r;
    Tile<kRows, false>(pointers, panel, depth, out + row * kColumns, kColumns);
  }
}

void CopyOut(const float* panel, const Sizes& s, int64_t block, const Vector* factors, float* to) {
  const int64_t width = s.Width(block);
  for (int64_t i = 0; i < s.d; ++i) {
    float row[kColumns];
    for (int v = 0; v < kVectors; ++v) Store(row + v * kLanes, Load(panel + i * kColumns + v * kLanes) * factors[v]);
    std::memcpy(to + i * s.queries + block * kColumns, row, width * sizeof(float));
  }
}

// Turns scores (logarithms to base 2) into weights that still have to be divided by `sums`; highest: of each column.
void Exponentials(float* scores, int64_t keys, Vector* highest, Vector* sums) {
  for (int v = 0; v < kVectors; ++v) {
    Vector high = Load(scores + v * kLanes), sum = {};
    for (int64_t m = 1; m < keys; ++m) {
      const Vector score = Load(scores + m * kColumns + v * kLanes);
      high = score > high ? score : high;
    }
    for (int64_t m = 0; m < keys; ++m) {
      float* at = scores + m * kColumns + v * kLanes;
      const Vector weight = Exp2(Load(at) - high);
      Store(at, weight);
      sum += weight;
    }
    highest[v] = high;
    sums[v] = sum;
  }
}

void Forward(const AttentionArgs& args) {
  const Sizes s(args);
  const int64_t items = s.n * s.heads, padded = CeilDiv(s.d, kRows) * kRows;
  std::vector<std::vector<float>> keys(items), values(items);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t item = 0; item < items; ++item) {
      keys[item] = PackMatrix(args.kv + s.Key(item), s.keys, s.d, 1, s.keys);
      values[item] = PackMatrix(args.kv + s.Value(item), s.d, s.keys, s.keys, 1);
    }
    std::vector<float> panel(s.d * kColumns), weights(s.rows * kColumns), out(padded * kColumns);
#pragma omp for schedule(static)
    for (int64_t at = 0; at < items * s.blocks; ++at) {
      const int64_t item = at / s.blocks, block = at % s.blocks;
      PackBlock(args.q + s.Query(item), s, block, s.Scale() * kLog2E, panel.data());
      TimesPanel(keys[item].data(), panel.data(), s.rows, s.d, weights.data());
      Vector highest[kVectors], sums[kVectors];
      Exponentials(weights.data(), s.keys, highest, sums);
      TimesPanel(values[item].data(), weights.data(), padded, s.keys, out.data());
      for (int column = 0; column < s.Width(block); ++column) {
        const int v = column / kLanes, lane = column % kLanes;
        args.logs[item * s.queries + block * kColumns + column] = highest[v][lane] + std::log2(sums[v][lane]);
      }
      for (Vector& sum : sums) sum = 1.0f / sum;
      CopyOut(out.data(), s, block, sums, args.y + s.Query(item));
    }
  }
}

// transposed [pair][kColumns][kPair] of a panel [d][kColumns]; channels past the end stay 0
void Transpose(const float* panel, int64_t d, float* transposed) {
  for (int64_t i = 0; i < d; ++i) {
    float* to = transposed + i / kPair * kColumns * kPair + i % kPair;
    for (int64_t column = 0; column < kColumns; ++column) to[column * kPair] = panel[i * kColumns + column];
  }
}

// sums [pair][rows][kPair] += rows [rows][kColumns] times transposed [pair][kColumns][kPair]
void AddProducts(const float* left, const float* transposed, const Sizes& s, float* sums) {
  for (int64_t pair = 0; pair < s.pairs; ++pair) {
    for (int64_t row = 0; row < s.rows; row += kRows) {
      const float* rows[kRows];
      for (int r = 0; r < kRows; ++r) rows[r] = left + (row + r) * kColumns;
      Tile<1, true, 2>(rows, transposed + pair * kColumns * kPair, kColumns, sums + (pair * s.rows + row) * kPair,
                       kPair);
    }
  }
}

// The packed keys and values of one image and head, for the backward kernel.
struct Packed {
  std::vector<float> keys, keys_by_channel, values;

  Packed() = default;
  Packed(const float* k, const float* v, const Sizes& s)
      : keys(PackMatrix(k, s.keys, s.d, 1, s.keys)),
        keys_by_channel(PackMatrix(k, s.d, s.keys, s.keys, 1)),
        values(PackMatrix(v, s.keys, s.d, 1, s.keys)) {}
};

// What a thread works on: one block of queries.
struct Scratch {
  std::vector<float> query, grad, weights, dweights, query_rows, grad_rows, out;

  explicit Scratch(const Sizes& s)
      : query(s.d * kColumns),
        grad(s.d * kColumns),
        weights(s.rows * kColumns),
        dweights(s.rows * kColumns),
        query_rows(s.pairs * kColumns * kPair),
        grad_rows(s.pairs * kColumns * kPair),
        out(CeilDiv(s.d, kRows) * kRows * kColumns) {}
};

// From scores to weights, and from the weights' gradients to the scores': weight * (gradient - their mean).
void ScoreGradients(const Sizes& s, const Vector* logs, const Vector* means, float* weights, float* dweights) {
  for (int64_t m = 0; m < s.keys; ++m) {
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = m * kColumns + v * kLanes;
      const Vector weight = Exp2(Load(weights + at) - logs[v]);
      Store(weights + at, weight);
      Store(dweights + at, weight * (Load(dweights + at) - means[v]));
    }
  }
  std::fill(weights + s.keys * kColumns, weights + s.rows * kColumns, 0.0f);
  std::fill(dweights + s.keys * kColumns, dweights + s.rows * kColumns, 0.0f);
}

// The tensors of one image and head, for the backward kernel.
struct Head {
  const float *q, *y, *logs, *dy;
  float* dq;
};

// One block of queries: its dq, and its part of dk and dv added to `dk` and `dv` [pair][rows][kPair].
void BackwardBlock(const Sizes& s, const Packed& packed, const Head& t, int64_t block, Scratch& z, float* dk,
                   float* dv) {
  PackBlock(t.q, s, block, s.Scale() * kLog2E, z.query.data());
  PackBlock(t.dy, s, block, 1.0f, z.grad.data());
  float logs[kColumns] = {}, means[kColumns] = {};
  for (int64_t column = 0; column < s.Width(block); ++column) logs[column] = t.logs[block * kColumns + column];
  for (int64_t i = 0; i < s.d; ++i) {
    const float* y = t.y + i * s.queries + block * kColumns;
    for (int64_t column = 0; column < s.Width(block); ++column)
      means[column] += y[column] * z.grad[i * kColumns + column];
  }
  Vector log_vectors[kVectors], mean_vectors[kVectors], scales[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    log_vectors[v] = Load(logs + v * kLanes);
    mean_vectors[v] = Load(means + v * kLanes);
    scales[v] = Vector{} + s.Scale();
  }
  TimesPanel(packed.keys.data(), z.query.data(), s.rows, s.d, z.weights.data());
  TimesPanel(packed.values.data(), z.grad.data(), s.rows, s.d, z.dweights.data());
  ScoreGradients(s, log_vectors, mean_vectors, z.weights.data(), z.dweights.data());
  TimesPanel(packed.keys_by_channel.data(), z.dweights.data(), CeilDiv(s.d, kRows) * kRows, s.keys, z.out.data());
  CopyOut(z.out.data(), s, block, scales, t.dq);
  Transpose(z.query.data(), s.d, z.query_rows.data());
  Transpose(z.grad.data(), s.d, z.grad_rows.data());
  AddProducts(z.dweights.data(), z.query_rows.data(), s, dk);
  AddProducts(z.weights.data(), z.grad_rows.data(), s, dv);
}

// to (d, keys) = factor * the sum of all slices [pair][rows][kPair]
void AddSlices(const float* sums, int64_t slices, int64_t pitch, const Sizes& s, float factor, float* to) {
  for (int64_t i = 0; i < s.d; ++i) {
    for (int64_t m = 0; m < s.keys; ++m) {
      const float* from = sums + (i / kPair * s.rows + m) * kPair + i % kPair;
      float sum = 0;
      for (int64_t slice = 0; slice < slices; ++slice) sum += from[slice * pitch];
      to[i * s.keys + m] = sum * factor;
    }
  }
}

void Backward(const AttentionBackwardArgs& args) {
  const Sizes s(args);
  constexpr float kLn2 = 0.69314718f;
  // The sums over queries are cut into slices whose number depends on the shapes alone, not on the threads.
  const int64_t items = s.n * s.heads, slices = std::min(s.blocks, CeilDiv(16, items));
  const int64_t floats = s.pairs * s.rows * kPair;
  std::vector<float> sums(items * 2 * slices * floats);
  std::vector<Packed> packed(items);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t item = 0; item < items; ++item) {
      packed[item] = Packed(args.kv + s.Key(item), args.kv + s.Value(item), s);
    }
    Scratch scratch(s);
#pragma omp for schedule(static)
    for (int64_t at = 0; at < items * slices; ++at) {
      const int64_t item = at / slices, slice = at % slices, query = s.Query(item);
      const Head t = {args.q + query, args.y + query, args.logs + item * s.queries, args.dy + query, args.dq + query};
      float* dk = &sums[(item * 2 * slices + slice) * floats];
      for (int64_t block = slice * s.blocks / slices; block < (slice + 1) * s.blocks / slices; ++block) {
        BackwardBlock(s, packed[item], t, block, scratch, dk, dk + slices * floats);
      }
    }
#pragma omp for schedule(static)
    for (int64_t item = 0; item < items; ++item) {
      const float* dk = &sums[item * 2 * slices * floats];
      AddSlices(dk, slices, floats, s, kLn2, args.dkv + s.Key(item));
      AddSlices(dk + slices * floats, slices, floats, s, 1.0f, args.dkv + s.Value(item));
    }
  }
}

}  // namespace

EXPORT(Attention, Forward)
EXPORT(AttentionBackward, Backward)
