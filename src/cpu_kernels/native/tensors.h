// What MindSpore hands to a kernel, and the check of it. The generated operators.h makes one structure per kernel from
// it, whose members are the arguments, sides and numbers that the operator table names.
//
// N images, C channels, H x W pixels. Every sum in a kernel is formed in an order that depends on the shapes alone, so
// results do not depend on the number of threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <vector>

// A kernel throws it, outside of its parallel parts, for tensors that it cannot work on. MindSpore's RuntimeError then
// holds its sentence.
using Refused = std::invalid_argument;

constexpr int64_t kAny = -1;            // a side that may have any size but 0
constexpr float kMostNumber = 1 << 20;  // numbers that decide about shapes are smaller; as MOST in checking.py

// What an argument has to be. A side in `shape` that ends with = is shown with its value.
struct Expected {
  const char *name, *type, *shape;
};

// A side or number with its value.
struct Named {
  const char* name;
  int64_t value;
};

// The last sides of a tensor; any if count is negative.
struct Sides {
  const int64_t* first = nullptr;
  int64_t count = -1;

  int64_t Product() const {
    int64_t product = 1;
    for (int64_t i = 0; i < count; ++i) product *= first[i];
    return product;
  }
};

class [[gnu::visibility("hidden")]] Tensors {
 public:
  Tensors(const char* kernel, int count, void** data, const int* ranks, int64_t** shapes, const char** types)
      : kernel_(kernel), count_(count), data_(data), ranks_(ranks), shapes_(shapes), types_(types) {}

  template <typename T>
  T* Data(int index) const {
    return static_cast<T*>(data_[index]);
  }
  int64_t Side(int index, int axis) const { return axis < ranks_[index] ? shapes_[index][axis] : kAny; }
  Sides Rest(int index, int axis) const { return {shapes_[index] + axis, ranks_[index] - axis}; }

  void CheckCount(int count, const char* names) const {
    if (count_ != count) RefuseCount(count, names);
  }

  // Length of the lists, each of which has to have the same, among `fixed` other tensors.
  int64_t CheckLists(int fixed, int lists, const char* names) const {
    if (count_ <= fixed || (count_ - fixed) % lists != 0) RefuseLists(fixed, lists, names);
    return (count_ - fixed) / lists;
  }

  // The entries of a list: any shapes for the first list, which begins at `first`, and the same ones for the others.
  void CheckEach(int64_t index, int64_t entries, const Expected& expected, int64_t first) const;

  // How many elements the entries of a list have.
  std::vector<int64_t> Products(int64_t index, int64_t entries) const {
    std::vector<int64_t> products(entries);
    for (int64_t i = 0; i < entries; ++i) products[i] = Rest(index + i, 0).Product();
    return products;
  }

  template <typename T>
  T* const* Each(int64_t index) const {
    return reinterpret_cast<T* const*>(data_ + index);
  }

  // `rest`: what follows the given sides; nothing unless said.
  void Check(int index, const Expected& expected, std::initializer_list<int64_t> sides,
             Sides rest = {nullptr, 0}) const {
    if (std::strcmp(types_[index], expected.type) != 0) RefuseType(index, expected);
    if (!Fits(index, sides, rest)) RefuseShape(index, expected, sides, rest);
  }

  void CheckRule(bool holds, const char* rule, std::initializer_list<Named> values) const {
    if (!holds) RefuseRule(rule, values);
  }

  // A number that decides about shapes.
  int64_t Whole(const char* name, float number) const {
    if (!(number >= 0 && number < kMostNumber)) RefuseNumber(name, number);  // NaN too
    const int64_t whole = static_cast<int64_t>(number);
    if (static_cast<float>(whole) != number) RefuseNumber(name, number);
    return whole;
  }

 private:
  bool Fits(int index, std::initializer_list<int64_t> sides, Sides rest) const {
    const int64_t fixed = static_cast<int64_t>(sides.size()), count = ranks_[index] - fixed;
    if (count < 0 || (rest.count >= 0 && count != rest.count)) return false;
    const int64_t* found = shapes_[index];
    for (int64_t side : sides) {
      if (side == kAny ? *found <= 0 : *found != side) return false;
      ++found;
    }
    if (rest.count >= 0) return std::equal(found, found + count, rest.first);
    return std::all_of(found, found + count, [](int64_t side) { return side > 0; });
  }

  [[noreturn]] void RefuseCount(int count, const char* names) const;
  [[noreturn]] void RefuseLists(int fixed, int lists, const char* names) const;
  [[noreturn]] void RefuseType(int index, const Expected& expected) const;
  [[noreturn]] void RefuseShape(int index, const Expected& expected, std::initializer_list<int64_t> sides,
                                Sides rest) const;
  [[noreturn]] void RefuseRule(const char* rule, std::initializer_list<Named> values) const;
  [[noreturn]] void RefuseNumber(const char* name, float number) const;

  const char* kernel_;
  int count_;
  void** data_;
  const int* ranks_;
  int64_t** shapes_;
  const char** types_;
};

// The name that MindSpore looks up. Its last two arguments (stream, extra) mean nothing on a CPU.
#define EXPORT(name, kernel)                                                                                    \
  extern "C" int name(int count, void** data, int* ranks, int64_t** shapes, const char** types, void*, void*) { \
    kernel(Read##name(Tensors(#name, count, data, ranks, shapes, types)));                                      \
    return 0;                                                                                                   \
  }
