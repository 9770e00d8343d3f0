// The gradients of inverted_residual.cc.
//
// The gradient of the expansion is not stored either. With g what ReLU6 lets through, the normalisation's gradient is
// scale * (g - mean(g) - (u - mean) * slope), and u = W x: so the gradients of W and x follow from the sums of g and of
// g x', and from the covariance of u and x that the forward pass has left.

#include "inverted_residual.h"
#include "operators.h"

namespace {

// The gradient of a normalisation's input: scale * (passed - mean_grad - (value - mean) * slope).
struct NormGradient {
  Floats scale, mean_grad, mean, slope;

  // `sums` of what passed, and `products` of that and value - mean.
  NormGradient(const float* gamma, const float* means, const float* inverse_std, const double* sums,
               const double* products, double pixels, int64_t channels, float* dgamma, float* dbeta)
      : scale(WholeVectors(channels)), mean_grad(scale), mean(scale), slope(scale) {
    for (int64_t i = 0; i < channels; ++i) {
      const double inverse = inverse_std[i];
      dgamma[i] = static_cast<float>(products[i] * inverse);
      dbeta[i] = static_cast<float>(sums[i]);
      scale[i] = gamma[i] * inverse_std[i];
      mean[i] = means[i];
      mean_grad[i] = static_cast<float>(sums[i] / pixels);
      slope[i] = static_cast<float>(products[i] * inverse * inverse / pixels);
    }
  }
};

// The same for a vector of channels.
struct NormGradientVector {
  Vector scale, mean_grad, mean, slope;

  NormGradientVector(const NormGradient& norm, int64_t channel)
      : scale(Load(&norm.scale[channel])),
        mean_grad(Load(&norm.mean_grad[channel])),
        mean(Load(&norm.mean[channel])),
        slope(Load(&norm.slope[channel])) {}

  Vector Of(Vector passed, Vector value) const { return scale * (passed - mean_grad - (value - mean) * slope); }
};

template <typename Args>
NormGradient OutputGradient(const Args& a) {
  const int64_t pixels = a.n * a.out_h * a.out_w, out = a.out;
  const std::vector<double> total = PixelSums(pixels, 2 * out, [&](int64_t pixel, float* sums) {
    const float *dy = a.dy + pixel * out, *value = a.projected + pixel * out;
#pragma omp simd
    for (int64_t i = 0; i < out; ++i) {
      sums[i] += dy[i];
      sums[out + i] += dy[i] * (value[i] - a.mean3[i]);
    }
  });
  return {a.gamma3, a.mean3,   a.inverse_std3, total.data(), total.data() + out, static_cast<double>(pixels),
          out,      a.dgamma3, a.dbeta3};
}

// Gradient of the projection before its normalisation, for some pixels.
template <typename Args>
void FillProjected(const Args& a, const NormGradient& norm, int64_t first, int64_t count, Padded* grads) {
  for (int64_t pixel = 0; pixel < count; ++pixel) {
    const int64_t at = (first + pixel) * a.out;
    float* to = grads->Row(pixel);
#pragma omp simd
    for (int64_t i = 0; i < a.out; ++i) {
      const float part = a.dy[at + i] - norm.mean_grad[i] - (a.projected[at + i] - norm.mean[i]) * norm.slope[i];
      to[i] = norm.scale[i] * part;
    }
  }
}

// What the filter's ReLU6 lets pass, and what was projected: z. `grads` is what came back through the projection. The
// tiles hold kBlock channels, those from `channel` on being worked on; the tensors `channels`.
template <typename Stored>
struct FilteredTile {
  const Stored* filtered;
  Stored* passed;
  int64_t pixels, channels;
};

template <typename Args>
void PassFiltered(const Args& a, const Folded& norm, const FilteredTile<typename FactorsOf<Args>::Stored>& tile,
                  int64_t channel, const float* grads, float* z, double* sums) {
  using Factors = FactorsOf<Args>;
  const Vector scale = Load(&norm.scale[channel]), shift = Load(&norm.shift[channel]), mean = Load(a.mean2 + channel);
  Vector passed_sum{}, product_sum{};
  for (int64_t pixel = 0; pixel < tile.pixels; ++pixel) {
    const Vector filtered = Factors::Read(tile.filtered + pixel * tile.channels), value = filtered * scale + shift;
    const Vector passed = Passed6(Load(grads + pixel * kBlock), value);
    Store(z + pixel * kBlock, Clamped(value));
    Factors::Write(tile.passed + pixel * tile.channels, passed);
    passed_sum += passed;
    product_sum += passed * (filtered - mean);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    sums[channel + lane] += passed_sum[lane];
    sums[a.e + channel + lane] += product_sum[lane];
  }
}

// Back through the projection and the ReLU6 before it; `passed` and the gradient of the projection's weights.
template <typename Args>
NormGradient ProjectBackward(const Args& a) {
  using Factors = FactorsOf<Args>;
  const NormGradient output = OutputGradient(a);
  const Packed<Factors> project(Copied(a.project, a.out, a.e));
  const Folded norm(a.gamma2, a.beta2, a.mean2, a.inverse_std2, a.e);
  const int64_t pixels = a.n * a.out_h * a.out_w, shares = SharesOf(pixels, a.out * a.e);
  Partial<double> sums(shares, 2 * a.e);
  Partial<float> weights(shares, a.out * a.e);
  ForEachShare(shares, [&](int64_t share) {
    double* total = sums.Begin(share);
    float* dproject = weights.Begin(share);
    Padded projected(kFlatPixels, a.out);
    Floats grads(kFlatPixels * kBlock), z(kFlatPixels * kBlock);
    typename Factors::Scratch scratch[3];
    ForEachRange(share, shares, pixels, kFlatPixels, [&](int64_t first, int64_t count) {
      FillProjected(a, output, first, count, &projected);
      const auto rows = Factors::Rows(projected.Row(0), count, a.out, projected.pitch, &scratch[0]);
      const auto turned = Factors::Turned(projected.Row(0), a.out, count, projected.pitch, &scratch[1]);
      ForEachBlock(a.e, [&](int64_t channel, int64_t channels) {
        Product<Factors, Plus::kNothing>(rows, project.Columns(channel, channels),
                                         [&](int64_t row) { return grads.data() + row * kBlock; });
        for (int64_t lane = 0; lane < channels; lane += kLanes) {
          const FilteredTile<typename Factors::Stored> tile = {
              HiddenAt(a.filtered, pixels, first, channel, channels) + lane,
              HiddenAt(a.passed, pixels, first, channel, channels) + lane, count, channels};
          PassFiltered(a, norm, tile, channel + lane, grads.data() + lane, z.data() + lane, total);
        }
        Product<Factors, Plus::kThere>(turned, Factors::Columns(z.data(), count, channels, kBlock, &scratch[2]),
                                       [&](int64_t row) { return dproject + row * a.e + channel; });
      });
    });
  });
  const float* dproject = weights.Total();
  std::copy(dproject, dproject + a.out * a.e, a.dproject);
  const double* total = sums.Total();
  return {a.gamma2, a.mean2, a.inverse_std2, total, total + a.e, static_cast<double>(pixels), a.e, a.dgamma2, a.dbeta2};
}

// Gradients of the filter's results around a tile of its input, kBlock channels at a time.
template <int kStride, typename Args>
class FilteredGradients {
 public:
  FilteredGradients(const Args& a, const ImageTiles& tiles)
      : a_(a), tile_(), grads_(tiles.images, tiles.strip / kStride + 2, a.out_w) {}

  void Begin(const ImageTile& tile) {
    tile_ = tile;
    top_ = kStride == 1 ? tile.row - 1 : tile.row / 2;
    rows_ = kStride == 1 ? tile.rows + 2 : (tile.row + tile.rows) / 2 - top_ + 1;
    grads_.Clear();
  }

  void Fill(const NormGradient& norm, int64_t channel, int64_t channels) {
    const int64_t first = std::max<int64_t>(top_, 0), end = std::min(a_.out_h, top_ + rows_);
    const int64_t size = a_.out_h * a_.out_w, pixels = a_.n * size;
    for (int64_t image = 0; image < tile_.images; ++image) {
      for (int64_t row = first; row < end; ++row) {
        const int64_t pixel = (tile_.image + image) * size + row * a_.out_w;
        const Stored* passed = HiddenAt(a_.passed, pixels, pixel, channel, channels);
        const Stored* filtered = HiddenAt(a_.filtered, pixels, pixel, channel, channels);
        FillRow(norm, channel, channels, passed, filtered, grads_.At(image, row - top_, 0));
      }
    }
  }

  // A row of the tile's gradients that a row of the input needs; `x` = 0 is the border.
  const float* Row(int64_t image, int64_t output_row, int64_t lane) {
    return grads_.At(image, output_row - top_, -1) + lane;
  }

 private:
  using Factors = FactorsOf<Args>;
  using Stored = typename Factors::Stored;

  void FillRow(const NormGradient& norm, int64_t channel, int64_t channels, const Stored* passed,
               const Stored* filtered, float* to) const {
    for (int64_t lane = 0; lane < channels; lane += kLanes) {
      const NormGradientVector gradient(norm, channel + lane);
      for (int64_t x = 0; x < a_.out_w; ++x) {
        const int64_t at = x * channels + lane;
        Store(to + x * kBlock + lane, gradient.Of(Factors::Read(passed + at), Factors::Read(filtered + at)));
      }
    }
  }

  const Args& a_;
  ImageTile tile_;
  int64_t top_ = 0, rows_ = 0;
  BorderedTile grads_;
};

// Gradients of one vector of channels, input pixel by input pixel: of the filter, and what the ReLU6 before it passes.
struct FilterGradients {
  Vector taps[kFilter], found[kFilter] = {}, sum{};

  // One input pixel: kCount results of the filter had it under the taps that are named.
  template <int kCount>
  void Add(float* z, const int (&tap)[kCount], const float* const (&grads)[kCount], float* passed) {
    const Vector value = Load(z), used = Clamped(value);
    Vector grad{};
    for (int i = 0; i < kCount; ++i) {
      const Vector result = Load(grads[i]);
      grad += taps[tap[i]] * result;
      found[tap[i]] += used * result;
    }
    grad = Passed6(grad, value);
    sum += grad;
    Store(passed, grad);
  }
};

// A row of the input, stride 1.
inline void GradientRow1(FilterGradients* g, float* z, const float* above, const float* at, const float* below,
                         int64_t width, float* passed) {
  FilterGradients local = *g;
  for (int64_t x = 0; x < width; ++x) {
    const int64_t i = x * kBlock;
    local.Add<9>(z + i, {8, 7, 6, 5, 4, 3, 2, 1, 0},
                 {above + i, above + i + kBlock, above + i + 2 * kBlock, at + i, at + i + kBlock, at + i + 2 * kBlock,
                  below + i, below + i + kBlock, below + i + 2 * kBlock},
                 passed + i);
  }
  *g = local;
}

// A row of the input with an even index, stride 2: the filter's middle row was on it. `at` begins with the border.
inline void GradientRowEven(FilterGradients* g, float* z, const float* at, int64_t width, float* passed) {
  FilterGradients local = *g;
  for (int64_t x = 0; x < width; x += 2) {
    const float* here = at + (x / 2 + 1) * kBlock;
    local.Add<1>(z + x * kBlock, {4}, {here}, passed + x * kBlock);
    if (x + 1 == width) break;
    local.Add<2>(z + (x + 1) * kBlock, {5, 3}, {here, here + kBlock}, passed + (x + 1) * kBlock);
  }
  *g = local;
}

// One with an odd index: under the last row of the results above and the first row of those below.
inline void GradientRowOdd(FilterGradients* g, float* z, const float* above, const float* below, int64_t width,
                           float* passed) {
  FilterGradients local = *g;
  for (int64_t x = 0; x < width; x += 2) {
    const float *up = above + (x / 2 + 1) * kBlock, *down = below + (x / 2 + 1) * kBlock;
    local.Add<2>(z + x * kBlock, {7, 1}, {up, down}, passed + x * kBlock);
    if (x + 1 == width) break;
    local.Add<4>(z + (x + 1) * kBlock, {8, 6, 2, 0}, {up, up + kBlock, down, down + kBlock}, passed + (x + 1) * kBlock);
  }
  *g = local;
}

template <int kStride, typename Args>
void AddTileGradients(const Args& a, const ImageTile& tile, FilteredGradients<kStride, Args>* grads, int64_t lane,
                      FilterGradients* g, float* z, float* passed) {
  for (int64_t image = 0; image < tile.images; ++image) {
    for (int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
      const int64_t at = ((image * tile.rows + row - tile.row) * a.w) * kBlock + lane;
      const auto results = [&](int64_t output_row) { return grads->Row(image, output_row, lane); };
      if (kStride == 1) {
        GradientRow1(g, z + at, results(row - 1), results(row), results(row + 1), a.w, passed + at);
      } else if (row % 2 == 0) {
        GradientRowEven(g, z + at, results(row / 2), a.w, passed + at);
      } else {
        GradientRowOdd(g, z + at, results(row / 2), results(row / 2 + 1), a.w, passed + at);
      }
    }
  }
}

// What the passes over the input's tiles add up.
struct ExpandSums {
  Partial<double> filter, passed;  // (9, E) and (E,)
  Partial<float> products;         // (C, E): of the input and what passed

  template <typename Args>
  ExpandSums(const Args& a, int64_t shares)
      : filter(shares, kFilter * a.e), passed(shares, a.e), products(shares, a.c * a.e) {}
};

// Back through the filter and the ReLU6 before it, and to what reaches the input through the expansion's weights alone.
template <int kStride, typename Args>
void FilterBackward(const Args& a, const NormGradient& norm, int64_t shares, ExpandSums* sums) {
  using Factors = FactorsOf<Args>;
  const Folded expand_norm(a.gamma1, a.beta1, a.mean1, a.inverse_std1, a.e);
  const Packed<Factors> weights(Transposed(a.expand, a.e, a.c, expand_norm.scale.data()));
  const Packed<Factors> back(Copied(a.expand, a.e, a.c, expand_norm.scale.data()));
  const Padded taps = Transposed(a.filter, a.e, kFilter);
  const ImageTiles tiles(a.n, a.h, a.w, std::clamp<int64_t>((1 << 15) / a.c, kFlatPixels, kImagePixels / 2), shares);
  ForEachShare(shares, [&](int64_t share) {
    double *dfilter = sums->filter.Begin(share), *total = sums->passed.Begin(share);
    float* products = sums->products.Begin(share);
    const int64_t most = tiles.images * tiles.strip * a.w;
    FilteredGradients<kStride, Args> grads(a, tiles);
    Floats z(most * kBlock), passed(most * kBlock);
    typename Factors::Scratch scratch[4];
    Padded dx(most, a.c);
    tiles.ForEach(share, shares, [&](const ImageTile& tile) {
      const int64_t pixels = tile.images * tile.rows * a.w, first = (tile.image * a.h + tile.row) * a.w;
      const float* x = a.x + first * a.c;
      const auto rows = Factors::Rows(x, pixels, a.c, a.c, &scratch[0]);
      const auto turned = Factors::Turned(x, a.c, pixels, a.c, &scratch[1]);
      std::fill(dx.values.begin(), dx.values.end(), 0.0f);
      grads.Begin(tile);
      ForEachBlock(a.e, [&](int64_t channel, int64_t channels) {
        Product<Factors, Plus::kBias>(
            rows, weights.Columns(channel, channels), [&](int64_t row) { return z.data() + row * kBlock; },
            &expand_norm.shift[channel]);
        grads.Fill(norm, channel, channels);
        for (int64_t lane = 0; lane < channels; lane += kLanes) {
          FilterGradients g;
          for (int tap = 0; tap < kFilter; ++tap) {
            g.taps[tap] = Load(taps.values.data() + tap * taps.pitch + channel + lane);
          }
          AddTileGradients(a, tile, &grads, lane, &g, z.data(), passed.data());
          for (int i = 0; i < kLanes; ++i) {
            total[channel + lane + i] += g.sum[i];
            for (int tap = 0; tap < kFilter; ++tap) dfilter[tap * a.e + channel + lane + i] += g.found[tap][i];
          }
        }
        Product<Factors, Plus::kThere>(turned, Factors::Columns(passed.data(), pixels, channels, kBlock, &scratch[2]),
                                       [&](int64_t row) { return products + row * a.e + channel; });
        Product<Factors, Plus::kThere>(Factors::Rows(passed.data(), pixels, channels, kBlock, &scratch[3]),
                                       back.Columns(0, a.c, channel), [&](int64_t row) { return dx.Row(row); });
      });
      for (int64_t row = 0; row < pixels; ++row) {
        std::copy(dx.Row(row), dx.Row(row) + a.c, a.dx + (first + row) * a.c);
      }
    });
  });
}

// The gradient of the expansion's weights from the sums, and what normalised it.
template <typename Args>
NormGradient ExpandGradient(const Args& a, ExpandSums* sums) {
  const double pixels = static_cast<double>(a.n) * a.h * a.w;
  const double *passed = sums->passed.Total(), *filter = sums->filter.Total();
  const float* products = sums->products.Total();
  for (int64_t i = 0; i < kFilter * a.e; ++i) a.dfilter[i % a.e * kFilter + i / a.e] = static_cast<float>(filter[i]);
  std::vector<double> with_value(a.e);
  Padded input(a.e, a.c);  // the sums of the input, less its mean, and what passed
#pragma omp parallel for schedule(static) if (a.c * a.e > kManyWeights)
  for (int64_t e = 0; e < a.e; ++e) {
    for (int64_t i = 0; i < a.c; ++i) {
      const double product = products[i * a.e + e] - a.centre[i] * passed[e];
      input.Row(e)[i] = static_cast<float>(product);
      with_value[e] += a.expand[e * a.c + i] * product;
    }
  }
  NormGradient norm(a.gamma1, a.mean1, a.inverse_std1, passed, with_value.data(), pixels, a.e, a.dgamma1, a.dbeta1);
#pragma omp parallel for schedule(static) if (a.c * a.e > kManyWeights)
  for (int64_t e = 0; e < a.e; ++e) {
    const float factor = static_cast<float>(norm.slope[e] * pixels);
    for (int64_t i = 0; i < a.c; ++i) {
      a.dexpand[e * a.c + i] = norm.scale[e] * (input.Row(e)[i] - factor * a.spread[i * a.e + e]);
    }
  }
  return norm;
}

// What reaches the input through the mean and the variance of the expansion, and by the shortcut.
template <typename Args>
void FinishInput(const Args& a, const NormGradient& norm) {
  Floats minus_slope(a.e), start(WholeVectors(a.c));
  for (int64_t e = 0; e < a.e; ++e) {
    minus_slope[e] = -norm.slope[e];
    for (int64_t i = 0; i < a.c; ++i) start[i] -= a.expand[e * a.c + i] * norm.scale[e] * norm.mean_grad[e];
  }
  const Padded sloped = Copied(a.expand, a.e, a.c, minus_slope.data());
  const Padded scaled = Copied(a.expand, a.e, a.c, norm.scale.data());
  Padded through(a.c, a.c);
#pragma omp parallel for schedule(static) if (a.c * a.e > 1 << 14)
  for (int64_t row = 0; row < a.c; row += kRows) {
    Product<Float32, Plus::kNothing>(
        {sloped.values.data() + row, std::min<int64_t>(kRows, a.c - row), 1, sloped.pitch, a.e}, scaled.Columns(0, a.c),
        [&](int64_t r) { return through.Row(row + r); });
  }
  const int64_t pixels = a.n * a.h * a.w, shares = SharesOf(pixels);
  ForEachShare(shares, [&](int64_t share) {
    Padded x(kFlatPixels, a.c), more(kFlatPixels, a.c);
    ForEachRange(share, shares, pixels, kFlatPixels, [&](int64_t first, int64_t count) {
      for (int64_t pixel = 0; pixel < count; ++pixel) {
        for (int64_t i = 0; i < a.c; ++i) x.Row(pixel)[i] = a.x[(first + pixel) * a.c + i] - a.centre[i];
      }
      Product<Float32, Plus::kBias>(
          {x.Row(0), count, x.pitch, 1, a.c}, through.Columns(0, a.c), [&](int64_t row) { return more.Row(row); },
          start.data());
      for (int64_t pixel = 0; pixel < count; ++pixel) {
        const int64_t at = (first + pixel) * a.c;
        for (int64_t i = 0; i < a.c; ++i) a.dx[at + i] += more.Row(pixel)[i];
        for (int64_t i = 0; i < a.c && a.shortcut; ++i) a.dx[at + i] += a.dy[at + i];
      }
    });
  });
}

template <int kStride, typename Args>
void Backward(const Args& a) {
  const NormGradient filtered = ProjectBackward(a);
  const int64_t shares = SharesOf(a.n * a.h * a.w, a.c * a.e);
  ExpandSums sums(a, shares);
  FilterBackward<kStride>(a, filtered, shares, &sums);
  FinishInput(a, ExpandGradient(a, &sums));
}

}  // namespace

EXPORT(InvertedResidualBackwardS1, Backward<1>)
EXPORT(InvertedResidualBackwardS1Sum, Backward<1>)
EXPORT(InvertedResidualBackwardS2, Backward<2>)
EXPORT(InvertedResidualBfloat16BackwardS1, Backward<1>)
EXPORT(InvertedResidualBfloat16BackwardS1Sum, Backward<1>)
EXPORT(InvertedResidualBfloat16BackwardS2, Backward<2>)
