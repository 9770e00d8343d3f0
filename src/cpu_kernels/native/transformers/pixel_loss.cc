// Cross entropy of logits that are resized to the labels first. The large logits exist for a few rows at a time only,
// and the gradient is formed in the same pass.

#include <algorithm>
#include <cmath>
#include <vector>

#include "bilinear.h"
#include "operators.h"
#include "vectors.h"

namespace {

struct Problem {
  int64_t n, classes, h, w, height, width;
  const float *logits, *weights;
  const int32_t* labels;
  int32_t ignore;
  Taps rows, columns;

  // 0 for pixels that do not count.
  float Weight(int32_t label) const { return label == ignore ? 0.0f : weights[label]; }
};

// Rows of the labels that lie between the same two rows of the logits.
struct Band {
  int64_t image, first, last;
};

std::vector<Band> BandsOf(const Problem& p) {
  std::vector<Band> bands;
  for (int64_t image = 0; image < p.n; ++image) {
    for (int64_t y = 0; y < p.height; ++y) {
      if (y && p.rows.low[y] == p.rows.low[y - 1]) {
        bands.back().last = y + 1;
      } else {
        bands.push_back({image, y, y + 1});
      }
    }
  }
  return bands;
}

// What a thread works on: (classes, width) each.
struct Scratch {
  std::vector<float> low, high, probability, dlow, dhigh, highest, sums;

  Scratch(int64_t floats, int64_t width)
      : low(floats), high(floats), probability(floats), dlow(floats), dhigh(floats), highest(width), sums(width) {}
};

// Softmax of one row of pixels into z.probability; returns the row's sum of weighted cross entropies.
double Row(const Problem& p, int64_t y, const int32_t* labels, Scratch& z) {
  const float upper = p.rows.weight[y];
  const int64_t width = p.width;
  float *highest = z.highest.data(), *sums = z.sums.data();
  for (int64_t k = 0; k < p.classes; ++k) {
    const float *low = &z.low[k * width], *high = &z.high[k * width];
    float* __restrict logit = &z.probability[k * width];
#pragma omp simd
    for (int64_t x = 0; x < width; ++x) {
      logit[x] = low[x] + (high[x] - low[x]) * upper;
      highest[x] = k == 0 || logit[x] > highest[x] ? logit[x] : highest[x];
    }
  }
  double loss = 0;
  for (int64_t x = 0; x < width; ++x) {
    const float weight = p.Weight(labels[x]);
    if (weight != 0.0f) loss += weight * (highest[x] - z.probability[labels[x] * width + x]);
    sums[x] = 0;
  }
  for (int64_t k = 0; k < p.classes; ++k) {
    float* row = &z.probability[k * width];
    int64_t x = 0;
    for (; x + kLanes <= width; x += kLanes) {
      const Vector value = Exp2((Load(row + x) - Load(highest + x)) * kLog2E);
      Store(row + x, value);
      Store(sums + x, Load(sums + x) + value);
    }
    for (; x < width; ++x) sums[x] += row[x] = std::exp(row[x] - highest[x]);
  }
  for (int64_t x = 0; x < width; ++x) {
    const float weight = p.Weight(labels[x]);
    loss += weight * std::log(sums[x]);  // NaN where a logit is, even if the pixel does not count
    sums[x] = weight / sums[x];
  }
  return loss;
}

// One band's sum of losses; its gradient is written to dlow and dhigh (classes, w), for its two rows of the logits.
double BandLoss(const Problem& p, const Band& band, float factor, Scratch& z, float* dlow, float* dhigh) {
  const int64_t low = p.rows.low[band.first], high = p.rows.high[band.first], width = p.width;
  for (int64_t k = 0; k < p.classes; ++k) {
    const float* plane = p.logits + (band.image * p.classes + k) * p.h * p.w;
    p.columns.Widen(plane + low * p.w, &z.low[k * width]);
    p.columns.Widen(plane + high * p.w, &z.high[k * width]);
  }
  std::fill(z.dlow.begin(), z.dlow.end(), 0.0f);
  std::fill(z.dhigh.begin(), z.dhigh.end(), 0.0f);
  double loss = 0;
  for (int64_t y = band.first; y < band.last; ++y) {
    const int32_t* labels = p.labels + (band.image * p.height + y) * width;
    loss += Row(p, y, labels, z);
    const float upper = p.rows.weight[y] * factor, lower = factor - upper;
    for (int64_t k = 0; k < p.classes; ++k) {
      const float *row = &z.probability[k * width], *sums = z.sums.data();
      float *to_low = &z.dlow[k * width], *to_high = &z.dhigh[k * width];
      for (int64_t x = 0; x < width; ++x) {
        const float gradient = row[x] * sums[x];
        to_low[x] += gradient * lower;
        to_high[x] += gradient * upper;
      }
    }
    for (int64_t x = 0; x < width; ++x) {
      const float weight = p.Weight(labels[x]);
      if (weight == 0.0f) continue;
      z.dlow[labels[x] * width + x] -= weight * lower;
      z.dhigh[labels[x] * width + x] -= weight * upper;
    }
  }
  for (int64_t k = 0; k < p.classes; ++k) {
    p.columns.AddNarrowed(&z.dlow[k * width], dlow + k * p.w);
    p.columns.AddNarrowed(&z.dhigh[k * width], dhigh + k * p.w);
  }
  return loss;
}

// The sum of the weights of all pixels that count.
double TotalWeight(const Problem& p) {
  double total = 0;
  const int64_t pixels = p.height * p.width;
  for (int64_t image = 0; image < p.n; ++image) {
    for (int64_t i = image * pixels; i < (image + 1) * pixels; ++i) {
      const int32_t label = p.labels[i];
      if (label == p.ignore) continue;
      if (label < 0 || label >= p.classes) {
        throw Refused("CPU kernel PixelLoss: label must hold classes from 0 to " + std::to_string(p.classes - 1) +
                      " or " + std::to_string(p.ignore) + ", not " + std::to_string(label));
      }
      total += p.weights[label];
    }
  }
  return total;
}

void Forward(const PixelLossArgs& args) {
  const Problem p = {args.n,
                     args.classes,
                     args.h,
                     args.w,
                     args.height,
                     args.width,
                     args.logits,
                     args.weights,
                     args.label,
                     static_cast<int32_t>(args.ignore),
                     Taps(args.h, args.height),
                     Taps(args.w, args.width)};
  const double total = TotalWeight(p);
  const double factor = 1.0 / std::max(total, 1e-6);
  const std::vector<Band> bands = BandsOf(p);
  const int64_t count = static_cast<int64_t>(bands.size()), floats = p.classes * p.w;
  std::vector<double> losses(count);
  std::vector<float> gradients(count * 2 * floats);
#pragma omp parallel
  {
    Scratch scratch(p.classes * p.width, p.width);
#pragma omp for schedule(static)
    for (int64_t band = 0; band < count; ++band) {
      float* to = &gradients[band * 2 * floats];
      losses[band] = BandLoss(p, bands[band], static_cast<float>(factor), scratch, to, to + floats);
    }
  }
  double loss = 0;
  for (double part : losses) loss += part;
  args.loss[0] = static_cast<float>(loss * factor);
  float* out = args.dlogits;
  std::fill(out, out + p.n * p.classes * p.h * p.w, 0.0f);
  for (int64_t band = 0; band < count; ++band) {
    for (int side = 0; side < 2; ++side) {
      const float* from = &gradients[(band * 2 + side) * floats];
      const int64_t y = side ? p.rows.high[bands[band].first] : p.rows.low[bands[band].first];
      for (int64_t k = 0; k < p.classes; ++k) {
        float* to = out + ((bands[band].image * p.classes + k) * p.h + y) * p.w;
        for (int64_t x = 0; x < p.w; ++x) to[x] += from[k * p.w + x];
      }
    }
  }
}

}  // namespace

EXPORT(PixelLoss, Forward)
