// MobileNetV2's block in training: expansion, filter and projection with their normalisations, channels last.
//
// The expansion, six times as wide as its input, is never stored: its statistics follow from the covariance of the
// input, and whoever needs a tile of it computes it again.

#include "inverted_residual.h"

#include "operators.h"

namespace {

// The statistics of one of the block's normalisations, as WriteStatistics in batch_norm.h wants them.
struct NormArgs {
  const float *gamma, *beta, *moving_mean, *moving_variance;
  float *mean, *inverse_std, *new_mean, *new_variance;
  float eps, momentum;
};

template <typename Args>
NormArgs ExpandNorm(const Args& a) {
  return {a.gamma1,    a.beta1,         a.moving_mean1, a.moving_variance1, a.mean1, a.inverse_std1,
          a.new_mean1, a.new_variance1, a.eps,          a.momentum};
}

template <typename Args>
NormArgs FilterNorm(const Args& a) {
  return {a.gamma2,    a.beta2,         a.moving_mean2, a.moving_variance2, a.mean2, a.inverse_std2,
          a.new_mean2, a.new_variance2, a.eps,          a.momentum};
}

template <typename Args>
NormArgs ProjectNorm(const Args& a) {
  return {a.gamma3,    a.beta3,         a.moving_mean3, a.moving_variance3, a.mean3, a.inverse_std3,
          a.new_mean3, a.new_variance3, a.eps,          a.momentum};
}

Folded FoldedBy(const NormArgs& norm, int64_t channels) {
  return Folded(norm.gamma, norm.beta, norm.mean, norm.inverse_std, channels);
}

Folded FoldedBy(const NormArgs& norm, int64_t channels, double pixels, ChannelMoments* moments) {
  moments->Total();
  for (int64_t i = 0; i < channels; ++i) {
    WriteStatistics(norm, i, Moments{pixels, moments->Mean(i), moments->Squares(i)});
  }
  return FoldedBy(norm, channels);
}

// Mean of the input per channel.
template <typename Args>
void InputMean(const Args& a) {
  const int64_t pixels = a.n * a.h * a.w;
  const std::vector<double> total = PixelSums(pixels, a.c, [&](int64_t pixel, float* sums) {
#pragma omp simd
    for (int64_t i = 0; i < a.c; ++i) sums[i] += a.x[pixel * a.c + i];
  });
  for (int64_t i = 0; i < a.c; ++i) a.centre[i] = static_cast<float>(total[i] / pixels);
}

// Covariance of the input, (C, C).
template <typename Args>
Padded InputCovariance(const Args& a) {
  const int64_t pixels = a.n * a.h * a.w, shares = SharesOf(pixels), pitch = WholeVectors(a.c);
  Partial<float> sums(shares, a.c * pitch);
  ForEachShare(shares, [&](int64_t share) {
    float* total = sums.Begin(share);
    Padded tile(kFlatPixels, a.c);
    ForEachRange(share, shares, pixels, kFlatPixels, [&](int64_t first, int64_t count) {
      for (int64_t pixel = 0; pixel < count; ++pixel) {
        const float* x = a.x + (first + pixel) * a.c;
        float* to = tile.Row(pixel);
#pragma omp simd
        for (int64_t i = 0; i < a.c; ++i) to[i] = x[i] - a.centre[i];
      }
      Product<Float32, Plus::kThere>({tile.Row(0), a.c, 1, pitch, count}, tile.Columns(0, a.c),
                                     [=](int64_t row) { return total + row * pitch; });
    });
  });
  const float* total = sums.Total();
  Padded covariance(a.c, a.c);
  for (int64_t i = 0; i < a.c * pitch; ++i) covariance.values[i] = total[i] / static_cast<float>(pixels);
  return covariance;
}

// Statistics of the expansion: its covariance with the input, `spread`, is that of the input times the weights.
template <typename Args>
Folded ExpandStatistics(const Args& a) {
  InputMean(a);
  Padded covariance = InputCovariance(a);
  const Padded weight = Transposed(a.expand, a.e, a.c);
#pragma omp parallel for schedule(static) if (a.c * a.e > 1 << 14)
  for (int64_t first = 0; first < a.e; first += kBlock) {
    Product<Float32, Plus::kNothing>({covariance.Row(0), a.c, covariance.pitch, 1, a.c},
                                     weight.Columns(first, std::min(kBlock, a.e - first)),
                                     [&](int64_t row) { return a.spread + row * a.e + first; });
  }
  const NormArgs norm = ExpandNorm(a);
  const double pixels = static_cast<double>(a.n) * a.h * a.w;
  for (int64_t e = 0; e < a.e; ++e) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < a.c; ++i) {
      const double factor = a.expand[e * a.c + i];
      mean += factor * a.centre[i];
      variance += factor * a.spread[i * a.e + e];
    }
    WriteStatistics(norm, e, Moments{pixels, mean, std::max(variance, 0.0) * pixels});
  }
  return FoldedBy(norm, a.e);
}

// The filter's results, and their statistics.
template <int kStride, typename Args>
Folded FilterAll(const Args& a, const ForwardWeights<FactorsOf<Args>>& weights) {
  const int64_t size = a.out_h * a.out_w, shares = SharesOf(a.n * size);
  const ImageTiles tiles(a.n, a.out_h, a.out_w * kStride * kStride, kImagePixels, shares);
  ChannelMoments moments(shares, a.e);
  ForEachShare(shares, [&](int64_t share) {
    Expansion<kStride, FactorsOf<Args>, Args> expansion(a, tiles);
    tiles.ForEach(share, shares, [&](const ImageTile& tile) {
      expansion.Begin(tile);
      const int64_t pixels = tile.images * tile.rows * a.out_w, at = tile.image * size + tile.row * a.out_w;
      ForEachBlock(a.e, [&](int64_t first, int64_t channels) {
        expansion.Fill(weights, first, channels);
        for (int64_t lane = 0; lane < channels; lane += kLanes) {
          auto* to = HiddenAt(a.filtered, a.n * size, at, first, channels) + lane;
          Vector taps[kFilter], sums{}, squares{}, centre{};
          weights.LoadTaps(first + lane, taps);
          expansion.Filter(taps, lane, [&](int64_t pixel, Vector value) {
            if (pixel == 0) centre = value;
            FactorsOf<Args>::Write(to + pixel * channels, value);
            const Vector distance = value - centre;
            sums += distance;
            squares += distance * distance;
          });
          float parts[3][kLanes];
          Store(parts[0], centre);
          Store(parts[1], sums);
          Store(parts[2], squares);
          moments.Add(share, first + lane, kLanes, pixels, parts[0], parts[1], parts[2]);
        }
      });
    });
  });
  return FoldedBy(FilterNorm(a), a.e, static_cast<double>(a.n) * size, &moments);
}

// ReLU6 of the normalised results of the filter, for a block of channels.
template <typename Factors>
void NormalizeBlock(const typename Factors::Stored* filtered, int64_t pixels, int64_t first, int64_t channels,
                    const Folded& norm, float* to) {
  for (int64_t lane = 0; lane < channels; lane += kLanes) {
    const Vector scale = Load(&norm.scale[first + lane]), shift = Load(&norm.shift[first + lane]);
    for (int64_t at = lane; at < pixels * channels; at += channels) {
      Store(to + at, Clamped(Factors::Read(filtered + at) * scale + shift));
    }
  }
}

// A tile's channels (pixels, pitch): deviations from its first pixel, and their squares, added to `moments`.
inline void AddTile(const Padded& tile, int64_t pixels, int64_t channels, int64_t share, ChannelMoments* moments) {
  for (int64_t i = 0; i < channels; i += kLanes) {
    const float* from = tile.values.data() + i;
    Vector sums{}, squares{};
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      const Vector distance = Load(from + pixel * tile.pitch) - Load(from);
      sums += distance;
      squares += distance * distance;
    }
    float parts[2][kLanes];
    Store(parts[0], sums);
    Store(parts[1], squares);
    moments->Add(share, i, std::min<int64_t>(kLanes, channels - i), pixels, from, parts[0], parts[1]);
  }
}

// The projection before its normalisation, and its statistics.
template <typename Args>
Folded ProjectAll(const Args& a, const ForwardWeights<FactorsOf<Args>>& weights, const Folded& norm) {
  using Factors = FactorsOf<Args>;
  const int64_t pixels = a.n * a.out_h * a.out_w, shares = SharesOf(pixels), most = kFlatPixels;
  ChannelMoments moments(shares, a.out);
  ForEachShare(shares, [&](int64_t share) {
    Floats z(most * kBlock);
    typename Factors::Scratch scratch;
    Padded tile(most, a.out);
    ForEachRange(share, shares, pixels, most, [&](int64_t first, int64_t count) {
      std::fill(tile.values.begin(), tile.values.end(), 0.0f);
      ForEachBlock(a.e, [&](int64_t channel, int64_t channels) {
        const auto* filtered = HiddenAt(a.filtered, pixels, first, channel, channels);
        NormalizeBlock<Factors>(filtered, count, channel, channels, norm, z.data());
        Product<Factors, Plus::kThere>(Factors::Rows(z.data(), count, channels, channels, &scratch),
                                       weights.project.Columns(0, a.out, channel),
                                       [&](int64_t row) { return tile.Row(row); });
      });
      AddTile(tile, count, a.out, share, &moments);
      for (int64_t row = 0; row < count; ++row) {
        std::copy(tile.Row(row), tile.Row(row) + a.out, a.projected + (first + row) * a.out);
      }
    });
  });
  return FoldedBy(ProjectNorm(a), a.out, static_cast<double>(pixels), &moments);
}

template <int kStride, typename Args>
void Forward(const Args& a) {
  const Folded expand_norm = ExpandStatistics(a);
  const ForwardWeights<FactorsOf<Args>> weights(a, expand_norm);
  const Folded filter_norm = FilterAll<kStride>(a, weights);
  const Folded norm = ProjectAll(a, weights, filter_norm);
  const int64_t pixels = a.n * a.out_h * a.out_w, out = a.out;
#pragma omp parallel for schedule(static) if (pixels > kSharePixels)
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    const float* from = a.projected + pixel * out;
    float* to = a.y + pixel * out;
#pragma omp simd
    for (int64_t i = 0; i < out; ++i) to[i] = from[i] * norm.scale[i] + norm.shift[i];
    if (a.shortcut) {
#pragma omp simd
      for (int64_t i = 0; i < out; ++i) to[i] += a.x[pixel * out + i];
    }
  }
}

}  // namespace

// Whether Bfloat16 is faster than Float32 here.
extern "C" int HasBfloat16() { return Bfloat16::kIsFast; }

EXPORT(InvertedResidualS1, Forward<1>)
EXPORT(InvertedResidualS1Sum, Forward<1>)
EXPORT(InvertedResidualS2, Forward<2>)
EXPORT(InvertedResidualBfloat16S1, Forward<1>)
EXPORT(InvertedResidualBfloat16S1Sum, Forward<1>)
EXPORT(InvertedResidualBfloat16S2, Forward<2>)
