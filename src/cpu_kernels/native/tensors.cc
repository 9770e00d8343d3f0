// The sentences that refuse tensors, as checking.py writes them, and calls for those who know no C++ exceptions.

#include "tensors.h"

#include <cstdio>
#include <exception>
#include <sstream>
#include <string>

namespace {

[[noreturn]] void Refuse(const char* kernel, const std::string& sentence) {
  throw Refused(std::string("CPU kernel ") + kernel + ": " + sentence);
}

void Append(std::string* list, const std::string& side) { *list += (list->empty() ? "" : ", ") + side; }

// As Python prints a tuple.
std::string Tuple(const std::string& list) {
  return "(" + list + (list.empty() || list.find(',') != std::string::npos ? ")" : ",)");
}

}  // namespace

void Tensors::RefuseCount(int count, const char* names) const {
  Refuse(kernel_, std::to_string(count) + " tensors are needed (" + names + "), not " + std::to_string(count_));
}

void Tensors::RefuseLists(int fixed, int lists, const char* names) const {
  Refuse(kernel_, std::to_string(fixed) + " tensors and " + std::to_string(lists) +
                      " lists of one length are needed (" + names + "), not " + std::to_string(count_) + " tensors");
}

void Tensors::CheckEach(int64_t index, int64_t entries, const Expected& expected, int64_t first) const {
  for (int64_t i = 0; i < entries; ++i) {
    const std::string number = std::to_string(i), name = std::string(expected.name) + "[" + number + "]";
    const std::string shape = "*sides" + number;
    Check(index + i, {name.c_str(), expected.type, shape.c_str()}, {}, index == first ? Sides{} : Rest(first + i, 0));
  }
}

void Tensors::RefuseType(int index, const Expected& expected) const {
  Refuse(kernel_, std::string(expected.name) + " must be of type " + expected.type + ", not " + types_[index]);
}

void Tensors::RefuseShape(int index, const Expected& expected, std::initializer_list<int64_t> sides, Sides rest) const {
  std::string wanted, found, side;
  std::istringstream words(expected.shape);
  for (int64_t value : sides) {
    words >> side;
    Append(&wanted, side.back() == '=' ? side + std::to_string(value) : side);
  }
  if (rest.count < 0 && words >> side) Append(&wanted, side);
  for (int64_t i = 0; i < rest.count; ++i) Append(&wanted, std::to_string(rest.first[i]));
  const Sides given = Rest(index, 0);
  for (int64_t i = 0; i < given.count; ++i) Append(&found, std::to_string(given.first[i]));
  const bool is_empty = std::find(given.first, given.first + given.count, 0) != given.first + given.count;
  Refuse(kernel_, std::string(expected.name) + " must have the shape " + Tuple(wanted) +
                      (is_empty ? " without a side of 0, not " : ", not ") + Tuple(found));
}

void Tensors::RefuseRule(const char* rule, std::initializer_list<Named> values) const {
  std::string sentence;
  for (const Named& named : values) {
    sentence += (sentence.empty() ? "" : " and ") + std::string(named.name) + "=" + std::to_string(named.value);
  }
  Refuse(kernel_, std::string(rule) + " has to hold, with " + sentence);
}

void Tensors::RefuseNumber(const char* name, float number) const {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", number);
  Refuse(kernel_, std::string(name) + " must be a whole number from 0 to 1048575, not " + text);
}

using Kernel = int(int, void**, int*, int64_t**, const char**, void*, void*);

// Calls a kernel; returns the sentence with which it refuses its tensors, or nullptr if it has done its work. The
// sentence lives until the next call of the same thread.
extern "C" const char* CallKernel(Kernel* kernel, int count, void** data, int* ranks, int64_t** shapes,
                                  const char** types) {
  thread_local std::string sentence;
  try {
    kernel(count, data, ranks, shapes, types, nullptr, nullptr);
    return nullptr;
  } catch (const std::exception& failure) {
    sentence = failure.what();
    return sentence.c_str();
  }
}
