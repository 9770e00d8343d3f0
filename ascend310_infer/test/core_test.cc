// Tests of what needs no card: core_test PART runs the checks of one part, core_test all of them.

#include <sys/stat.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <thread>

#include "channel.h"
#include "decode.h"
#include "errors.h"
#include "files.h"
#include "jpeg_header.h"
#include "options.h"
#include "resize.h"
#include "results.h"
#include "segmentation.h"
#include "timing.h"
#include "transform.h"

namespace {

using namespace infer;  // NOLINT: a test
namespace fs = std::filesystem;

int failures = 0;  // NOLINT

#define EXPECT(condition)                                                          \
  do {                                                                             \
    if (!(condition)) {                                                            \
      ++failures;                                                                  \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " << #condition << std::endl; \
    }                                                                              \
  } while (false)

template <typename Error>
std::string MessageOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool Contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// A folder that goes with the test.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "infer310-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { fs::remove_all(path_); }
  fs::path Write(const std::string& name, const std::string& text) const {
    WriteText(path_ / name, text);
    return path_ / name;
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

Image Gradient(int width, int height) {
  Image image(width, height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < kChannels; ++c)
        image.Row(y)[x * kChannels + c] = static_cast<uint8_t>((7 * x + 13 * y + 50 * c) % 256);
    }
  }
  return image;
}

void TestOptions() {
  const Options options =
      ParseOptions({"--model", "m.om", "--data=d", "--mode", "dvpp", "--device_id", "3", "--mean=1,2,3"});
  EXPECT(options.model == "m.om" && options.data == "d" && options.mode == Mode::kDvpp && options.device == 3);
  EXPECT(options.mean[2] == 3 && options.batch == 0 && options.fit == Fit::kByOutput);
  EXPECT(ParseOptions({"--help"}).help);
  EXPECT(Contains(Usage(), "--model"));
  const std::map<std::string, std::vector<std::string>> wrong = {
      {"no option", {"--modle", "x"}},
      {"has no value", {"--model"}},
      {"are needed", {"--model", "x"}},
      {"CPU or DVPP", {"--mode", "gpu"}},
      {"whole number", {"--device_id", "-1"}},
      {"whole number from 1", {"--batch", "0"}},
      {"three numbers", {"--mean", "1,2"}},
      {"above 0", {"--std", "1,0,1"}},
      {"auto, crop or pad", {"--fit", "x"}},
      {"below 1", {"--model=m", "--data=d", "--mode=CPU", "--resize_ratio=0.5"}}};
  for (const auto& [part, arguments] : wrong) {
    EXPECT(Contains(MessageOf<UsageError>([&arguments = arguments] { ParseOptions(arguments); }), part));
  }
}

void TestFiles() {
  const Scratch scratch;
  for (const char* name : {"cat/1.jpg", "cat/2.JPEG", "dog/deep/1.png", "dog/3.jpg", "dog/3.png", "dog/.hidden.jpg",
                           ".git/9.jpg", "notes.txt"}) {
    scratch.Write(name, "x");
  }
  const Listing listing = ListImages(scratch.path());
  std::vector<std::string> names;
  for (const Item& item : listing.images) names.push_back(item.name);
  EXPECT((names == std::vector<std::string>{"cat/1", "2", "dog/3.jpg", "dog/3.png", "dog/deep/1"}));
  EXPECT(listing.others.size() == 1 && listing.others[0].filename() == "notes.txt");
  EXPECT(ReadFile(scratch.path() / "notes.txt") == std::vector<uint8_t>{'x'});
  EXPECT(Contains(MessageOf<BadImage>([&] { ReadFile(scratch.Write("empty.jpg", "")); }), "empty"));
  EXPECT(Contains(MessageOf<BadImage>([&] { ReadFile(scratch.path() / "gone.jpg"); }), "cannot be opened"));
  EXPECT(Contains(MessageOf<std::runtime_error>([&] { ListImages(scratch.path() / "gone"); }), "not a folder"));
  fs::create_directory(scratch.path() / "bare");
  EXPECT(Contains(MessageOf<std::runtime_error>([&] { ListImages(scratch.path() / "bare"); }), "holds no images"));
}

// With labels: an image beside the class folders has none, and must not change the names of the others.
void TestClassFolders() {
  const Scratch scratch;
  for (const char* name : {"cat/1.jpg", "dog/2.jpg", "1.jpg", "notes.txt", ".hidden/3.jpg"}) scratch.Write(name, "x");
  EXPECT(ListImages(scratch.path()).images.size() == 3);
  const Listing listing = ListImages(scratch.path(), true);
  EXPECT(listing.images.size() == 2 && listing.images[0].name == "1");
  EXPECT(listing.images[0].file == scratch.path() / "cat" / "1.jpg" && listing.others.empty());
  EXPECT((listing.in_no_class == std::vector<fs::path>{scratch.path() / "1.jpg", scratch.path() / "notes.txt"}));
  EXPECT(ListImages(scratch.path() / "dog", true).images.size() == 1);  // no folders: all
}

std::vector<std::string> FilesBelow(const fs::path& root) {
  std::vector<std::string> files;
  for (const Item& item : ListImages(root).images) files.push_back(item.file.lexically_relative(root).generic_string());
  return files;
}

// As evaluation does it: links are followed, but not in circles, and no image vanishes.
void TestLinks() {
  const Scratch elsewhere;
  elsewhere.Write("owls/4.jpg", "x");
  elsewhere.Write("5.jpg", "x");
  const Scratch scratch;
  scratch.Write("cat/1.jpg", "x");
  const fs::path root = scratch.path();
  fs::create_directory_symlink(elsewhere.path() / "owls", root / "owl");
  fs::create_symlink(elsewhere.path() / "5.jpg", root / "cat" / "5.jpg");
  fs::create_symlink(root / "gone", root / "cat" / "6.jpg");
  fs::create_symlink(root / "gone", root / "cat" / "gone");
  fs::create_directory_symlink(root, root / "cat" / "again");
  fs::create_directory(root / "owl.jpg");
  fs::create_directory_symlink(root / "owl.jpg", root / "link.jpg");
  EXPECT((FilesBelow(root) == std::vector<std::string>{"cat/1.jpg", "cat/5.jpg", "cat/6.jpg", "owl/4.jpg"}));
  EXPECT(ListImages(root).others == std::vector<fs::path>{root / "cat" / "gone"});
  EXPECT(Contains(MessageOf<BadImage>([&] { ReadFile(root / "cat" / "6.jpg"); }), "cannot be opened"));
  EXPECT(mkfifo((root / "cat" / "7.jpg").c_str(), 0600) == 0);
  EXPECT(Contains(MessageOf<BadImage>([&] { ReadFile(root / "cat" / "7.jpg"); }), "not a regular file"));
  fs::remove(root / "cat" / "7.jpg");
  // the data folder itself may be a link
  fs::create_directory_symlink(root, elsewhere.path() / "data");
  EXPECT(FilesBelow(elsewhere.path() / "data").size() == 4);
}

void TestLabels() {
  const Scratch scratch;
  const Labels labels = ReadLabels(scratch.Write("label.txt", "a : 3\ncat/b.jpg:4\r\n\nc.d:5\n"));
  EXPECT(labels.at("a") == 3 && labels.at("cat/b") == 4 && labels.at("cat/b.jpg") == 4 && labels.at("c.d") == 5);
  EXPECT((WithoutLabel({{"x/a.jpg", "a"}, {"x/z.jpg", "z"}}, labels) == std::vector<std::string>{"z"}));
  EXPECT(
      Contains(MessageOf<std::runtime_error>([&] { ReadLabels(scratch.Write("bad.txt", "a:1\nb\n")); }), "bad.txt:2"));
  EXPECT(Contains(MessageOf<std::runtime_error>([&] { ReadLabels(scratch.Write("two.txt", "a:1\na.jpg:2\n")); }),
                  "two labels"));
  EXPECT(Contains(MessageOf<std::runtime_error>([&] { ReadLabels(scratch.Write("none.txt", "\n")); }), "no label"));
  EXPECT(Contains(MessageOf<std::runtime_error>([&] { ReadLabels(scratch.path() / "gone.txt"); }), "cannot open"));
}

void TestResults() {
  const Scratch scratch;
  const float values[] = {1.5F, -2.0F};
  WriteResult(scratch.path() / "out", "cat/1", 2, values, sizeof(values));
  EXPECT(fs::file_size(scratch.path() / "out" / "cat" / "1_2.bin") == sizeof(values));
  scratch.Write("file", "x");
  EXPECT(!MessageOf<std::exception>([&] { WriteResult(scratch.path() / "file", "a", 0, values, 4); }).empty());
}

void TestTiming() {
  const std::vector<double> sorted = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  EXPECT(Percentile(sorted, 50) == 5 && Percentile(sorted, 90) == 9 && Percentile(sorted, 99) == 10);
  EXPECT(Percentile({7}, 50) == 7);
  const std::string report = TimingReport({3, 1, 2}, 3, 100);
  EXPECT(report.rfind("NN inference cost average time: 2.000 ms of infer_count 3\n", 0) == 0);
  EXPECT(Contains(report, "p50 2.000 ms, p90 3.000 ms, p99 3.000 ms") &&
         Contains(report, "throughput: 30.000 images/s"));
  EXPECT(!MessageOf<std::runtime_error>([] { TimingReport({}, 0, 1); }).empty());
}

std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }

void TestJpeg() {
  const std::string frame("\xFF\xC2\x00\x11\x08\x00\x20\x00\x30\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01", 19);
  const std::string scan("\xFF\xDA\x00\x08\x01\x01\x00\x00\x3F\x00", 10);
  const std::string start("\xFF\xD8", 2);
  const std::string end("\xFF\xD9", 2);
  // An EXIF segment with orientation 6, whose thumbnail has an end mark of its own.
  const std::string tiff("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\xFF\xD9", 24);
  const std::string exif = std::string(
                               "\xFF\xE1\x00\x20"
                               "Exif\0\0",
                               10) +
                           tiff;
  auto header = ReadJpegHeader(Bytes(start + exif + "\xFF" + frame + scan + "pixels" + end + "tail"));
  EXPECT(header && header->width == 48 && header->height == 32 && header->components == 3 && header->frame == 0xC2);
  EXPECT(header && header->orientation == 6 && header->complete);
  header = ReadJpegHeader(Bytes(start + exif + frame + scan + "pixels"));
  EXPECT(header && !header->complete);
  for (size_t length = 0; length < (start + exif + frame).size(); ++length) {
    EXPECT(!ReadJpegHeader(Bytes((start + exif + frame).substr(0, length))));
  }
  EXPECT(!ReadJpegHeader(Bytes("GIF89a....")));
  for (size_t length = 0; length < tiff.size(); ++length) {
    TiffOrientation(reinterpret_cast<const uint8_t*>(tiff.data()), length);  // for the address sanitizer
  }
}

// Three components are YCbCr unless the file says otherwise; JFIF outdoes what Adobe's segment says, and that the
// names.
void TestColourOfJpeg() {
  const auto is_rgb = [](const std::string& segments, const std::string& ids) {
    std::string frame("\xFF\xC0\x00\x11\x08\x00\x20\x00\x30\x03-\x22\x00-\x11\x01-\x11\x01", 19);
    for (size_t c = 0; c < ids.size(); ++c) frame[10 + 3 * c] = ids[c];
    const std::string scan("\xFF\xDA\x00\x08\x01\x01\x00\x00\x3F\x00", 10);
    const auto header = ReadJpegHeader(Bytes("\xFF\xD8" + segments + frame + scan));
    EXPECT(header);
    return header && header->rgb;
  };
  const std::string adobe(
      "\xFF\xEE\x00\x0E"
      "Adobe\x00\x64\0\0\0\0",
      15);
  const std::string jfif("\xFF\xE0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0", 18);
  const std::string rgb(1, '\0');
  EXPECT(is_rgb(adobe + rgb, "RGB") && is_rgb(adobe + rgb, "\1\2\3") && is_rgb("", "RGB"));
  EXPECT(!is_rgb(adobe + "\1", "RGB") && !is_rgb("", "\1\2\3") && !is_rgb("", "RGA"));
  EXPECT(!is_rgb(jfif, "RGB") && !is_rgb(jfif + adobe + rgb, "\1\2\3") && !is_rgb(adobe + rgb + jfif, "RGB"));
}

void TestDecode() {
  for (const auto& [text, part] : std::map<std::string, std::string>{
           {"\x89PNG\r\n\x1a\n", "PNG"}, {"BM......", "neither JPEG nor PNG"}, {"\xFF\xD8\xFF\xE0", "JPEG"}}) {
    EXPECT(Contains(MessageOf<BadImage>([&text = text] { Decode(Bytes(text)); }), part));
  }
  std::vector<uint8_t> grey(12 * 5);
  for (size_t i = 0; i < grey.size(); ++i) grey[i] = static_cast<uint8_t>(4 * i);
  const std::vector<uint8_t> png = EncodeGreyPng(grey, 12, 5);
  const Image image = Decode(png);
  EXPECT(image.width == 12 && image.height == 5 && image.pixels[3 * 17] == grey[17] &&
         image.pixels[3 * 17 + 2] == grey[17]);
  for (size_t length = 4; length < png.size() - 12; ++length) {
    EXPECT(!MessageOf<BadImage>([&] {
              Decode({png.begin(), png.begin() + static_cast<std::ptrdiff_t>(length)});
            }).empty());
  }
  EXPECT(Contains(MessageOf<BadImage>([] { CheckSize(10000, 10000); }), "more than"));
  EXPECT(Contains(MessageOf<BadImage>([] { CheckSize(1, 101); }), "one side over"));
  // Turned by 6 (90 degrees clockwise): the lower left corner comes to the upper left.
  const Image source = Gradient(4, 3);
  const Image turned = Upright(source, 6);
  EXPECT(turned.width == 3 && turned.height == 4 && turned.Row(0)[0] == source.Row(2)[0]);
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const int back = orientation == 6 ? 8 : orientation == 8 ? 6 : orientation;
    EXPECT(Upright(Upright(source, orientation), back).pixels == source.pixels);
  }
}

void TestResize() {
  const Image image = Gradient(37, 23);
  EXPECT(ResizeLinear(image, 37, 23).pixels == image.pixels);
  Image flat(50, 40);
  std::fill(flat.pixels.begin(), flat.pixels.end(), 77);
  for (const Image& resized : {ResizeLinear(flat, 64, 71), ResizeArea(flat, 13, 11), Resize(flat, 25, 20)}) {
    EXPECT(resized.pixels == std::vector<uint8_t>(resized.pixels.size(), 77));
  }
  const float plane[] = {0, 1, 2, 3};
  const std::vector<float> larger = ResizePlane(plane, 2, 2, 4, 4);
  EXPECT(larger[0] == 0 && larger[1] == 0.25F && larger[5] == 0.75F && larger[15] == 3);
}

void TestTransform() {
  EXPECT((FittedSize({200, 100}, {64, 64}) == Size{64, 32}));
  EXPECT((FittedSize({100, 200}, {64, 32}) == Size{16, 32}));
  const Image image = Gradient(8, 6);
  const Image cropped = CenterCrop(image, {5, 3});  // halves are rounded to even: 1.5 is 2
  EXPECT(cropped.Row(0)[0] == image.Row(2)[2 * kChannels]);
  const Image padded = CenterCrop(image, {10, 6});
  EXPECT(padded.Row(0)[0] == 0 && padded.Row(0)[kChannels] == image.Row(0)[0] && padded.Row(0)[9 * kChannels] == 0);

  const Fitted fitted = FitToInput(Gradient(40, 20), {16, 16}, Fit::kPad, 1.0, {9, 8, 7});
  EXPECT((fitted.filled == Size{16, 8}) && fitted.picture.Row(15)[0] == 9 && fitted.picture.Row(15)[2] == 7);
  std::vector<float> planes(3 * 16 * 16, -1.0F);
  Normalise(fitted, {1, 2, 3}, {2, 2, 2}, planes.data());
  EXPECT(planes[8 * 16] == 0 && planes[0] == (fitted.picture.pixels[0] - 1) / 2.0F);

  Image red(4, 2);
  for (size_t i = 0; i < red.pixels.size(); i += kChannels) red.pixels[i] = 255;
  const std::vector<uint8_t> nv12 = ToNv12(red);
  EXPECT(nv12.size() == 12 && nv12[0] == 76 && nv12[8] == 85 && nv12[9] == 255);
}

void TestDvppPlan() {
  DvppPlan plan = PlanDvpp({500, 374}, {224, 224}, Fit::kCrop, 256.0 / 224);
  EXPECT((plan.whole == Size{684, 512}) && (plan.part == Size{448, 448}) && plan.left == 118 && plan.top == 32);
  plan = PlanDvpp({4000, 3000}, {224, 224}, Fit::kCrop, 256.0 / 224);
  EXPECT((plan.whole == Size{2728, 2048}) && plan.steps.size() == 3 && (plan.steps[0] == Size{896, 896}));
  for (const Size size : {Size{32, 32}, Size{34, 60}, Size{60, 34}, Size{1024, 768}, Size{8192, 8190}}) {
    plan = PlanDvpp(size, {32, 32}, Fit::kCrop, 256.0 / 224);
    EXPECT(!plan.steps.empty() && plan.left % 2 == 0 && plan.top % 2 == 0 && plan.part.width % 2 == 0);
    EXPECT(plan.left + plan.part.width <= plan.whole.width && plan.top + plan.part.height <= plan.whole.height);
  }
  EXPECT(!PlanDvpp({2048, 1024}, {1024, 512}, Fit::kPad, 1).steps.empty());
  EXPECT(PlanDvpp({2000, 1500}, {1024, 512}, Fit::kPad, 1).steps.empty());  // the rest would have to be filled
  EXPECT(PlanDvpp({32, 32}, {1024, 1024}, Fit::kPad, 1).steps.empty());     // enlarged too much
}

void TestSegmentation() {
  const float scores[] = {0.1F, 0.9F, 0.9F};
  EXPECT(BestClass(scores, 3) == 1);
  // Two classes on a map of 2x2, for an input of 4x4 of which the left half holds the picture.
  const float maps[] = {1, 0, 0, 0, 0, 0, 1, 1};
  const std::vector<uint8_t> classes = ClassMap(maps, 2, {2, 2}, {4, 4}, {2, 4}, {2, 4});
  EXPECT(classes.size() == 8 && classes[0] == 0 && classes[6] == 1);
  std::vector<float> many(257);
  many[255] = 1;
  EXPECT(ClassMap(many.data(), 256, {1, 1}, {1, 1}, {1, 1}, {1, 1}) == std::vector<uint8_t>{255});
  EXPECT(Contains(MessageOf<std::runtime_error>([&] { ClassMap(many.data(), 257, {1, 1}, {1, 1}, {1, 1}, {1, 1}); }),
                  "257 classes"));
}

void TestChannel() {
  Channel<int> channel;
  std::thread sender([&] {
    for (int i = 0; i < 100; ++i) channel.Send(i);
    channel.Close();
  });
  int sum = 0;
  while (const auto value = channel.Receive()) sum += *value;
  sender.join();
  EXPECT(sum == 4950 && !channel.Send(1) && !channel.Receive());
}

const std::map<std::string, std::function<void()>>& Parts() {
  static const std::map<std::string, std::function<void()>> parts = {{"options", TestOptions},
                                                                     {"files", TestFiles},
                                                                     {"links", TestLinks},
                                                                     {"class_folders", TestClassFolders},
                                                                     {"labels", TestLabels},
                                                                     {"results", TestResults},
                                                                     {"timing", TestTiming},
                                                                     {"jpeg", TestJpeg},
                                                                     {"jpeg_colour", TestColourOfJpeg},
                                                                     {"decode", TestDecode},
                                                                     {"resize", TestResize},
                                                                     {"transform", TestTransform},
                                                                     {"dvpp_plan", TestDvppPlan},
                                                                     {"segmentation", TestSegmentation},
                                                                     {"channel", TestChannel}};
  return parts;
}

}  // namespace

int main(int argc, char** argv) {
  for (const auto& [name, test] : Parts()) {
    if (argc == 1 || name == argv[1]) test();
  }
  return failures == 0 ? 0 : 1;
}
