"""Whatever fails, the application says what, ends with the right status, leaks nothing and keeps the results it had.

A leak or a misuse of the interface ends a run with the stand-in's own status, which no test here accepts.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.ascend310 import networks
from tests.ascend310.conftest import ROOT, App, picture, run_program, write
from tests.ascend310.test_app import ONE, YUV

UNCLEAN = 86
FAILED, WRONG_USAGE = 1, 2
CODE = 507899  # of no meaning, so that it can only come from the injection

IMAGES = ["cat/p0.jpg", "cat/p2.jpg", "owl/p1.jpg", "owl/p3.jpg"]  # in the order in which they are read

SETUP = [
    "aclInit",
    "aclrtGetDeviceCount",
    "aclrtSetDevice",
    "aclrtCreateContext",
    "aclrtGetRunMode",
    "aclmdlLoadFromFile",
    "aclmdlCreateDesc",
    "aclmdlGetDesc",
    "aclmdlGetInputDims",
    "aclmdlGetAippType",
    "aclmdlGetOutputDims",
    "aclmdlCreateDataset",
    "aclrtMalloc",
    "aclrtMemset",
    "aclCreateDataBuffer",
    "aclmdlAddDatasetBuffer",
    "aclrtSetCurrentContext",
    "aclmdlExecute",
    "aclrtMemcpy",
]
PICTURES = [
    "aclmdlGetFirstAippInfo",
    "aclrtCreateStream",
    "acldvppCreateChannelDesc",
    "acldvppCreateChannel",
    "acldvppCreateResizeConfig",
    "acldvppSetResizeConfigInterpolation",
    "acldvppMalloc",
    "acldvppCreatePicDesc",
    "acldvppSetPicDescData",
    "acldvppSetPicDescSize",
    "acldvppSetPicDescFormat",
    "acldvppSetPicDescWidth",
    "acldvppSetPicDescHeight",
    "acldvppSetPicDescWidthStride",
    "acldvppSetPicDescHeightStride",
    "acldvppCreateRoiConfig",
    "acldvppVpcCropResizeAsync",
    "acldvppVpcResizeAsync",
]
# These return an object or none, and no code.
MAKERS = """
    aclmdlCreateDesc aclmdlCreateDataset aclCreateDataBuffer acldvppCreateChannelDesc acldvppCreateResizeConfig
    acldvppCreatePicDesc acldvppCreateRoiConfig""".split()  # noqa: SIM905
# Of the application's start, so that no image is to blame.
BEFORE_IMAGES = {*SETUP, *PICTURES[: PICTURES.index("acldvppMalloc")]} - {"aclmdlExecute", "aclrtMemcpy"}
# Function, which call of it, mode, how many results there are then.
FATAL = [
    *((name, 1, "CPU", 0) for name in SETUP),
    *((name, 1, "DVPP", 0) for name in PICTURES),
    ("aclrtSynchronizeStream", 2, "DVPP", 0),  # the first is the decoder's
    ("acldvppGetPicDescRetCode", 2, "DVPP", 0),
    ("aclmdlExecute", 4, "CPU", 3),
    ("aclmdlExecute", 4, "DVPP", 3),
    ("aclrtMalloc", 3, "CPU", 0),
    # Of a later image, while earlier ones may be waiting to be executed: a picture for the file, one for each scaling.
    ("acldvppMalloc", 6, "DVPP", 1),  # the second image is the only one that needs more than the one before
    ("acldvppCreatePicDesc", 5, "DVPP", 1),
    ("acldvppVpcCropResizeAsync", 3, "DVPP", 2),
    ("acldvppVpcResizeAsync", 4, "DVPP", 2),
    ("acldvppSetPicDescData", 8, "DVPP", 2),
    ("acldvppGetPicDescRetCode", 10, "DVPP", 2),
    ("acldvppCreateRoiConfig", 4, "DVPP", 3),
    ("aclrtSynchronizeStream", 13, "DVPP", 3),
]
SIZES = ["aclmdlGetNumInputs", "aclmdlGetInputSizeByIndex", "aclmdlGetNumOutputs", "aclmdlGetOutputSizeByIndex"]
DECODER = [
    "acldvppJpegPredictDecSize",
    "acldvppJpegDecodeAsync",
    "aclrtSynchronizeStream",
    "acldvppGetPicDescRetCode",
]
RELEASES = """
    aclDestroyDataBuffer aclmdlDestroyDataset aclmdlDestroyDesc aclmdlUnload aclrtFree aclrtDestroyContext
    aclrtResetDevice aclFinalize acldvppFree acldvppDestroyPicDesc acldvppDestroyRoiConfig acldvppDestroyResizeConfig
    acldvppDestroyChannel acldvppDestroyChannelDesc aclrtDestroyStream""".split()  # noqa: SIM905
CANNOT_FAIL = """
    aclFloat16ToFloat aclFloatToFloat16 aclGetRecentErrMsg aclmdlGetOutputNameByIndex aclmdlGetInputFormat
    aclmdlGetInputDataType aclmdlGetOutputDataType acldvppGetPicDescData acldvppGetPicDescWidth
    acldvppGetPicDescHeight""".split()  # noqa: SIM905


# Codes of the runtime's own for what goes wrong: function, call, mode, codes.
KNOWN_CODES = [
    ("aclInit", 1, "CPU", (100002, 100003, 100006)),  # twice, a bad configuration file
    ("aclrtGetDeviceCount", 1, "CPU", (100001,)),  # before aclInit
    ("aclrtSetDevice", 1, "CPU", (107001, 507033)),  # no such card, an absent or busy one
    ("aclrtCreateContext", 1, "CPU", (107002,)),
    ("aclmdlLoadFromFile", 1, "CPU", (145002, 145006, 500002, 545001, 100003)),  # missing, truncated, no model
    ("aclmdlExecute", 2, "CPU", (100011, 145003, 100017, 100018, 145012, 107004)),  # model, buffers, context
    ("aclrtMalloc", 1, "CPU", (100000,)),
    ("aclrtMemcpy", 1, "CPU", (107000, 200003)),  # too long, memory of the wrong side
    ("acldvppVpcCropResizeAsync", 1, "DVPP", (100000, 200003)),  # strides that do not fit
    ("aclrtFree", 1, "CPU", (107000,)),  # memory of somebody else
    ("acldvppFree", 1, "DVPP", (200005,)),
    ("aclFinalize", 1, "CPU", (100037,)),
]


@pytest.fixture(scope="module")
def models(program_folder, toolkit, workers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    app = App(program_folder / "infer310", toolkit, workers, folder)
    onnx = networks.random_classifier(folder / "net.onnx")
    return {"CPU": app.convert(onnx, ONE, name="cpu"), "DVPP": app.convert(onnx, ONE, YUV, name="dvpp")}


def fail(app, models, photos, mode, function, call):
    return app.run(models[mode], photos, mode, STANDIN_FAIL=f"{function}:{call}:{CODE}")


def test_every_function_of_the_interface_is_injected():
    headers = "".join(file.read_text() for file in (ROOT / "tests/ascend310/standin/include").rglob("*.h"))
    declared = set(re.findall(r"\b(acl\w+)\(", headers))
    assert declared == {row[0] for row in FATAL} | {*SIZES, *DECODER, *RELEASES, *CANNOT_FAIL}


@pytest.mark.parametrize("function,call,mode,kept", FATAL)
def test_failure_ends_the_run(app, models, photos, function, call, mode, kept):
    """The call and what the runtime says about it, the image where it was about one, and the results until then."""
    done = fail(app, models, photos, mode, function, call)
    assert done.returncode == FAILED, done.stdout + done.stderr
    image = "" if function in BEFORE_IMAGES else rf"{photos}/{IMAGES[kept]}: "
    said = r"acldvppVpc\w*Async" if function == "acldvppGetPicDescRetCode" else function
    what = "returned no object" if function in MAKERS else f"failed with {CODE}"
    assert re.search(
        rf"^error: {image}{said} {what}.*injected failure of call {call} of {function}$", done.stderr, re.M
    )
    assert app.results() == sorted(f"{Path(name).stem}_0.bin" for name in IMAGES[:kept])


@pytest.mark.parametrize("function,call,mode,code", [(*row[:3], code) for row in KNOWN_CODES for code in row[3]])
def test_known_failures_are_told_with_their_codes(app, models, photos, function, call, mode, code):
    done = app.run(models[mode], photos, mode, STANDIN_FAIL=f"{function}:{call}:{code}")
    assert done.returncode == FAILED, done.stdout + done.stderr
    assert re.search(rf"^error: .*{function} failed with {code}\b", done.stderr, re.M), done.stderr
    kept = len(IMAGES) if function in RELEASES else call - 1 if function == "aclmdlExecute" else 0
    assert len(app.results()) == kept


@pytest.mark.parametrize("code", [148052, 200003])
def test_a_jpeg_that_the_decoder_refuses_is_decoded_by_the_host(app, models, photos, code):
    """As a progressive or arithmetic one: the stream's error or the picture's return code."""
    for function in ("aclrtSynchronizeStream", "acldvppGetPicDescRetCode"):
        done = app.run(models["DVPP"], photos, "DVPP", STANDIN_FAIL=f"{function}:1:{code}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(rf"DVPP did not decode \S+p0.jpg \(\w+ failed with {code}", done.stdout)


@pytest.mark.parametrize("function", SIZES)
def test_zero_sizes_are_refused(app, models, photos, function):
    done = fail(app, models, photos, "CPU", function, 1)
    assert (done.returncode, "error: the model" in done.stderr) == (FAILED, True), done.stderr


@pytest.mark.parametrize("function", DECODER)
def test_where_the_decoder_fails_the_host_decodes(app, models, photos, function):
    done = fail(app, models, photos, "DVPP", function, 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 done, 0 skipped, 1 decoded without DVPP" in done.stdout
    assert re.search(rf"DVPP did not decode \S+p0.jpg \(\w+ failed with {CODE}.*injected failure", done.stdout)


@pytest.mark.parametrize("function", RELEASES)
def test_failing_release_is_told(app, models, photos, function):
    done = fail(app, models, photos, "DVPP", function, 1)
    assert done.returncode == FAILED, done.stdout + done.stderr
    assert f"error: {function} failed with {CODE}" in done.stderr and len(app.results()) == 4


def test_model_files_that_are_none(app, models, photos, tmp_path):
    whole = models["CPU"].read_bytes()
    (tmp_path / "cut.om").write_bytes(whole[:-10])
    (tmp_path / "other.om").write_bytes(b"IMOD" + bytes(100))
    for name, part in (("gone.om", "is not a file"), ("cut.om", "truncated"), ("other.om", "no model of the stand-in")):
        done = app.run(tmp_path / name, photos, "CPU")
        assert (done.returncode, part in done.stderr) == (FAILED, True), done.stderr


def test_what_does_not_fit_is_refused(app, models, photos, tmp_path):
    cases = [
        (models["DVPP"], "CPU", [], "which mode CPU does not make"),
        (models["CPU"], "DVPP", [], "which the model does not take"),
        (models["CPU"], "CPU", ["--batch", "4"], "the model was converted for batch 1"),
        (models["CPU"], "CPU", ["--device_id", "1"], "this machine has 1"),
        (models["CPU"], "CPU", ["--label_path", "gone.txt"], "cannot open the label file"),
        (models["CPU"], "CPU", ["--result_path", models["CPU"]], "models"),
    ]
    narrow = networks.segmenter(tmp_path / "narrow.onnx", width=40)
    cases.append((app.convert(narrow, YUV, name="narrow"), "DVPP", [], "DVPP needs a width that 16 divides"))
    pictures = ["--label_pictures", "pictures"]
    cases.append((models["CPU"], "CPU", pictures, "no score map"))
    many = networks.segmenter(tmp_path / "many.onnx", classes=257)
    cases.append((app.convert(many, name="many"), "CPU", pictures, "257 classes, and a label picture holds 256"))
    for om, mode, options, part in cases:
        done = app.run(om, photos, mode, *options)
        assert (done.returncode, part in done.stderr) == (FAILED, True), done.stderr
    assert not (tmp_path / "result_Files").exists()  # nothing was begun
    done = app.run(models["CPU"], photos, "GPU")
    assert (done.returncode, "CPU or DVPP" in done.stderr) == (WRONG_USAGE, True)


def test_network_that_ends_early(app, models, photos, tmp_path):
    """The network's process dies: what a broken card would do."""
    broken = tmp_path / "broken.om"
    broken.write_bytes(models["CPU"].read_bytes().replace(b"payload onnx", b"payload oops"))
    done = app.run(broken, photos, "CPU")
    assert (done.returncode, "aclmdlExecute failed with 507011" in done.stderr) == (FAILED, True), done.stderr


def test_large_picture_shrinks_in_steps(app, models, tmp_path):
    write(tmp_path / "data" / "x.jpg", picture(1200, 900))
    done = app.run(models["DVPP"], tmp_path / "data", "DVPP")
    assert done.returncode == 0 and "0 decoded without DVPP" in done.stdout, done.stdout + done.stderr


def test_standin_notices_misuse(toolkit):
    """The proof is worth as much as the stand-in is strict: each case ends with its own complaints and no others."""
    cases = [line.split("|") for line in run_program(toolkit / "standin_test").stdout.splitlines()]
    assert len(cases) > 45
    for name, *complaints in cases:
        done = run_program(toolkit / "standin_test", name)
        if name == "touched_by_host":
            assert done.returncode == -signal.SIGSEGV, done.stderr  # the memory has no right to be touched
            continue
        assert done.stderr.splitlines() == [f"stand-in: {complaint}" for complaint in complaints], name
        assert (done.returncode, bool(complaints)) == ((0, False) if name == "clean" else (UNCLEAN, True)), name
