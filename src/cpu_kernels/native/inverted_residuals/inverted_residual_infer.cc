// MobileNetV2's block in evaluation: a tile goes through all of it, and nothing between input and result is stored.

#include "inverted_residual.h"
#include "operators.h"

namespace {

using Args = InvertedResidualInferArgs;

constexpr int64_t kLeastTile = 64, kMostTile = 1024;  // pixels

Folded FoldedMoving(const float* gamma, const float* beta, const float* mean, const float* variance, float eps,
                    int64_t channels) {
  Floats inverse_std(channels);
  for (int64_t i = 0; i < channels; ++i) inverse_std[i] = 1.0f / std::sqrt(variance[i] + eps);
  return Folded(gamma, beta, mean, inverse_std.data(), channels);
}

// Filter, normalisation and ReLU6 of a block of channels, to z (pixels, kBlock).
template <int kStride>
void FilterBlock(Expansion<kStride, Float32, Args>* expansion, const ForwardWeights<Float32>& weights,
                 const Folded& norm, int64_t first, int64_t channels, float* z) {
  expansion->Fill(weights, first, channels);
  for (int64_t lane = 0; lane < channels; lane += kLanes) {
    const Vector scale = Load(&norm.scale[first + lane]), shift = Load(&norm.shift[first + lane]);
    Vector taps[kFilter];
    weights.LoadTaps(first + lane, taps);
    expansion->Filter(taps, lane, [&](int64_t pixel, Vector value) {
      Store(z + pixel * kBlock + lane, Clamped(value * scale + shift));
    });
  }
}

template <int kStride>
void Infer(const Args& a) {
  const Folded expand = FoldedMoving(a.gamma1, a.beta1, a.moving_mean1, a.moving_variance1, a.eps, a.e);
  const Folded filter = FoldedMoving(a.gamma2, a.beta2, a.moving_mean2, a.moving_variance2, a.eps, a.e);
  const Folded project = FoldedMoving(a.gamma3, a.beta3, a.moving_mean3, a.moving_variance3, a.eps, a.out);
  const ForwardWeights<Float32> weights(a, expand, project.scale.data());
  const int64_t size = a.out_h * a.out_w, pixels = a.n * size, shares = SharesOf(pixels);
  const int64_t most = std::clamp(pixels / 4, kLeastTile, kMostTile) * kStride * kStride;
  const ImageTiles tiles(a.n, a.out_h, a.out_w * kStride * kStride, most, shares);
  ForEachShare(shares, [&](int64_t share) {
    Expansion<kStride, Float32, Args> expansion(a, tiles);
    Floats z(tiles.images * tiles.strip * a.out_w * kBlock);
    Padded sums(tiles.images * tiles.strip * a.out_w, a.out);
    tiles.ForEach(share, shares, [&](const ImageTile& tile) {
      const int64_t count = tile.images * tile.rows * a.out_w, at = tile.image * size + tile.row * a.out_w;
      expansion.Begin(tile);
      for (int64_t row = 0; row < count; ++row) {
        std::copy(project.shift.begin(), project.shift.end(), sums.Row(row));
      }
      ForEachBlock(a.e, [&](int64_t first, int64_t channels) {
        FilterBlock<kStride>(&expansion, weights, filter, first, channels, z.data());
        Product<Float32, Plus::kThere>({z.data(), count, kBlock, 1, channels}, weights.project.Columns(0, a.out, first),
                                       [&](int64_t row) { return sums.Row(row); });
      });
      for (int64_t row = 0; row < count; ++row) {
        float* to = a.y + (at + row) * a.out;
        std::copy(sums.Row(row), sums.Row(row) + a.out, to);
        for (int64_t i = 0; i < a.out && a.shortcut; ++i) to[i] += a.x[(at + row) * a.out + i];
      }
    });
  });
}

}  // namespace

EXPORT(InvertedResidualInferS1, Infer<1>)
EXPORT(InvertedResidualInferS1Sum, Infer<1>)
EXPORT(InvertedResidualInferS2, Infer<2>)
