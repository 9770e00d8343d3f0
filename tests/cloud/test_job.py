"""From a job's parameters to local paths and back, for all models and commands, without a network."""

from __future__ import annotations

import importlib
import io
import zipfile
from pathlib import Path

import pytest

from src import zoo
from src.cloud import job
from src.engine.config import options_of
from src.engine.data.image_folder import TRAIN_FOLDERS, scan
from src.engine.errors import UsageError, ZooError
from tests.object_storage import SECRET

ZIPPED = {"train/cat/1.jpg": b"1", "train/dog/2.jpg": b"2", "val/cat/3.jpg": b"3"}
SEGFORMER = ["--config_path", str(zoo.ROOT / "configs" / "segformer" / "segformer.b0.cpu.yaml")]
MOBILENET = ["--platform", "CPU"]


def zip_of(files=ZIPPED, top=""):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{top}{name}", content)
    return made.getvalue()


@pytest.fixture
def cache(tmp_path):
    """Flags for local folders, as /cache is on the platform."""
    return [
        f"--data_path={tmp_path}/cache/data",
        f"--load_path={tmp_path}/cache/load",
        f"--output_path={tmp_path}/cache/train",
    ]


def localised(command, *flags):
    """The configuration that the recipe would get."""
    cfg = zoo.configure(command, ["--enable_modelarts=True", *map(str, flags)])
    with job.opened(command, cfg) as local:
        return local


class TestData:
    @pytest.mark.parametrize("top", ["", "Pets/"])
    @pytest.mark.parametrize("given", ["", "--dataset_path={root}", "--dataset_path={root}/Pets"])
    def test_a_zip_file_from_the_store(self, stored, cache, tmp_path, top, given):
        scheme, bucket = stored
        bucket.write("data/Pets.zip", zip_of(top=top))
        bucket.write("data/huge_other_file.bin", b"stays where it is")
        flags = [f"--data_url={scheme}://{bucket.name}/data/", f"--train_url={scheme}://{bucket.name}/out/"]
        flags += ["--modelarts_dataset_unzip_name=Pets", *filter(None, [given.format(root=tmp_path / "cache/data")])]
        cfg = localised("train", *MOBILENET, *cache, *flags)
        assert Path(cfg.dataset_path) == tmp_path / "cache/data/Pets"
        assert (tmp_path / "cache/data/Pets/val/cat/3.jpg").read_bytes() == b"3"
        assert not (tmp_path / "cache/data/huge_other_file.bin").exists()

    def test_a_key_may_name_a_folder_within_the_data_set(self, bucket, cache, tmp_path):
        bucket.write("data/Pets.zip", zip_of())
        flags = [f"--data_url=s3://{bucket.name}/data/Pets.zip", "--modelarts_dataset_unzip_name=Pets"]
        flags += [f"--dataset_path={tmp_path}/cache/data/Pets/train", "--eval_dataset_path=val"]
        cfg = localised("train", *MOBILENET, *cache, *flags, f"--train_url={tmp_path}/out")
        assert Path(cfg.dataset_path) == tmp_path / "cache/data/Pets/train"
        assert Path(cfg.eval_dataset_path) == tmp_path / "cache/data/Pets/val"

    @pytest.mark.parametrize("given", ["weights.csv", "balanced", "{root}/weights.csv", ""])
    def test_the_weights_of_the_classes_may_lie_in_the_data_set(self, bucket, cache, tmp_path, given):
        """A class may be called as the word that stands for a file."""
        bucket.write("data/Pets.zip", zip_of({**ZIPPED, "weights.csv": b"cat,2", "balanced/1.jpg": b"1"}))
        root = tmp_path / "cache/data/Pets"
        flags = [f"--data_url=s3://{bucket.name}/data/Pets.zip", "--modelarts_dataset_unzip_name=Pets"]
        flags += [f"--class_weights={given.format(root=root)}", f"--train_url={tmp_path}/out"]
        found = localised("train", *MOBILENET, *cache, *flags).class_weights
        assert found == (str(root / "weights.csv") if "weights" in given else given)

    @pytest.mark.parametrize("unzip", [True, False])
    def test_a_folder_of_files_from_the_store(self, bucket, cache, tmp_path, unzip):
        for name, content in ZIPPED.items():
            bucket.write(f"data/Pets/{name}", content)
        url = f"s3://{bucket.name}/data" + ("" if unzip else "/Pets")
        flags = [f"--data_url={url}", f"--need_modelarts_dataset_unzip={unzip}", "--modelarts_dataset_unzip_name=Pets"]
        cfg = localised("eval", *MOBILENET, *cache, *flags)
        assert Path(cfg.dataset_path) == tmp_path / ("cache/data/Pets" if unzip else "cache/data")
        assert (Path(cfg.dataset_path) / "val/cat/3.jpg").read_bytes() == b"3"

    @pytest.mark.parametrize("address", ["data/Pets.zip", "data"])
    @pytest.mark.parametrize("is_remote", [True, False])
    def test_a_zip_file_may_stay_one(self, bucket, cache, tmp_path, address, is_remote):
        bucket.write("data/Pets.zip", zip_of())
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "Pets.zip").write_bytes(zip_of())
        url = f"s3://{bucket.name}/{address}" if is_remote else tmp_path / address
        flags = [f"--data_url={url}", "--need_modelarts_dataset_unzip=False", "--modelarts_dataset_unzip_name=Pets"]
        cfg = localised("train", *MOBILENET, *cache, *flags, f"--train_url={tmp_path}/out")
        assert Path(cfg.dataset_path) == (tmp_path / "cache" if is_remote else tmp_path) / "data/Pets.zip"
        assert scan(cfg.dataset_path, TRAIN_FOLDERS).names == ["cat/1.jpg", "dog/2.jpg"]

    def test_plain_paths_are_used_where_they_are(self, cache, tmp_path):
        for name in ZIPPED:
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).touch()
        flags = [f"--data_url={tmp_path}/in", "--need_modelarts_dataset_unzip=False", f"--train_url={tmp_path}/out"]
        cfg = localised("train", *MOBILENET, *cache, *flags)
        assert Path(cfg.dataset_path) == tmp_path / "in"
        assert Path(cfg.save_checkpoint_path) == tmp_path / "out/checkpoint"
        assert not (tmp_path / "cache" / "train").exists()

    def test_a_zip_file_at_a_plain_path_is_unpacked_to_the_cache(self, cache, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in/Pets.zip").write_bytes(zip_of())
        flags = [f"--data_url={tmp_path}/in", "--modelarts_dataset_unzip_name=Pets", f"--train_url={tmp_path}/out"]
        cfg = localised("train", *MOBILENET, *cache, *flags)
        assert Path(cfg.dataset_path) == tmp_path / "cache/data/Pets"
        assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["Pets.zip"]

    def test_segformer_has_the_same_keys(self, bucket, tmp_path):
        bucket.write("data/city.zip", zip_of({"leftImg8bit/x.png": b"x", "colours.csv": b"c"}, "city/"))
        bucket.write("pre/mit_b0.ckpt", b"weights")
        flags = [f"--data_url=s3://{bucket.name}/data", "--modelarts_dataset_unzip_name=city", "--distribute=True"]
        flags += [f"--checkpoint_url=s3://{bucket.name}/pre", "--checkpoint=mit_b0.ckpt", "--class_list=colours.csv"]
        flags += [f"--data_dir={tmp_path}/d", f"--load_path={tmp_path}/l", f"--train_url={tmp_path}/out"]
        cfg = localised("train", *SEGFORMER, *flags)
        assert Path(cfg.data_path) == tmp_path / "d/city" and Path(cfg.class_list) == tmp_path / "d/city/colours.csv"
        assert Path(cfg.pretrained_ckpt_path).read_bytes() == b"weights"
        assert cfg.run_distribute and Path(cfg.checkpoint_path) == tmp_path / "out/checkpoint"

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--data_url=s3://{bucket}/nothing"], "there is nothing at data_url"),
            (["--data_url=s3://{bucket}/data"], "holds neither ImageNet_Original.zip nor a folder ImageNet_Original"),
            (["--data_url=s3://{bucket}/data", "--modelarts_dataset_unzip_name="], "unzip_name is empty"),
            (["--data_url=ftp://x/y"], "begins with obs:// or s3://"),
            (["--data_url=/nowhere"], "holds neither"),
        ],
    )
    def test_mistakes_are_one_sentence(self, bucket, cache, tmp_path, flags, words):
        bucket.write("data/Pets.zip", zip_of())
        with pytest.raises(ZooError, match=words) as caught:
            localised("eval", *MOBILENET, *cache, *[flag.format(bucket=bucket.name) for flag in flags])
        assert "\n" not in str(caught.value)


class TestCheckpoint:
    @pytest.mark.parametrize(
        "given",
        [
            "--checkpoint=./mobilenetv2/mobilenetv2_trained.ckpt",
            "--pretrain_ckpt=mobilenetv2_trained.ckpt",
            "--pretrain_ckpt={load}/mobilenetv2/mobilenetv2_trained.ckpt",
        ],
    )
    def test_named_in_any_way(self, stored, cache, tmp_path, given):
        scheme, bucket = stored
        bucket.write("model/mobilenetv2/mobilenetv2_trained.ckpt", b"trained")
        bucket.write("model/other.ckpt", b"other")
        url = f"--checkpoint_url={scheme}://{bucket.name}/model/"
        cfg = localised("eval", *MOBILENET, *cache, url, given.format(load=tmp_path / "cache/load"))
        assert Path(cfg.pretrain_ckpt).read_bytes() == b"trained"
        assert not list((tmp_path / "cache/load").rglob("other.ckpt"))

    def test_the_only_one_needs_no_name(self, bucket, cache):
        bucket.write("model/a.ckpt", b"a")
        bucket.write("model/train.log", b"log")
        cfg = localised("eval", *MOBILENET, *cache, f"--checkpoint_url=s3://{bucket.name}/model")
        assert Path(cfg.pretrain_ckpt).read_bytes() == b"a"

    def test_the_address_may_be_the_file(self, bucket, cache, tmp_path):
        bucket.write("model/a.ckpt", b"a")
        flags = [f"--checkpoint_url=s3://{bucket.name}/model/a.ckpt", f"--train_url={tmp_path}/out"]
        cfg = localised("export", *MOBILENET, *cache, *flags)
        assert Path(cfg.ckpt_file).read_bytes() == b"a"

    def test_a_stale_file_in_the_cache_is_not_taken(self, stored, cache, tmp_path):
        """Of the same size, as all checkpoints of a network are, and moxing knows no checksums."""
        scheme, bucket = stored
        bucket.write("model/model.ckpt", b"right")
        (tmp_path / "cache/load").mkdir(parents=True)
        (tmp_path / "cache/load/model.ckpt").write_bytes(b"stale")
        flags = [f"--checkpoint_url={scheme}://{bucket.name}/model", f"--ckpt_file={tmp_path}/cache/load/model.ckpt"]
        cfg = localised("export", *MOBILENET, *cache, *flags, f"--train_url={tmp_path}/out")
        assert Path(cfg.ckpt_file).read_bytes() == b"right"

    def test_at_a_plain_path(self, cache, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model/a.ckpt").touch()
        for url in (tmp_path / "model", tmp_path / "model/a.ckpt"):
            cfg = localised("eval", *MOBILENET, *cache, f"--checkpoint_url={url}")
            assert Path(cfg.pretrain_ckpt) == tmp_path / "model/a.ckpt"

    def test_the_images_that_a_classifier_predicts_are_the_data_of_the_job(self, stored, cache, tmp_path):
        flags = [f"--train_url={tmp_path}/out", f"--checkpoint_url={tmp_path}/model"]
        unzip = "--need_modelarts_dataset_unzip=False"
        (tmp_path / "model").mkdir()
        (tmp_path / "model/a.ckpt").touch()
        cfg = localised("infer", *MOBILENET, *cache, *flags, f"--data_url={tmp_path}", "--dataset_path=model", unzip)
        assert cfg.images_to_predict == str(tmp_path / "model")
        assert Path(cfg.infer_output_path) == tmp_path / "out/infer_result"
        assert Path(cfg.pretrain_ckpt) == tmp_path / "model/a.ckpt"

    @pytest.mark.parametrize(
        ("command", "key"),
        [("eval", "eval_ckpt_path"), ("infer", "infer_ckpt_path"), ("export", "export_ckpt_path")],
    )
    @pytest.mark.parametrize("flag", ["--{key}=b.ckpt", "--checkpoint=b.ckpt", "--pretrain_ckpt=b.ckpt"])
    def test_segformer_takes_either_name_for_every_command(self, bucket, tmp_path, command, key, flag):
        for name in ("a", "b"):
            bucket.write(f"model/{name}.ckpt", name.encode())
        flags = [f"--checkpoint_url=s3://{bucket.name}/model", flag.format(key=key), f"--train_url={tmp_path}/out"]
        flags += [f"--data_dir={tmp_path}/d", f"--load_path={tmp_path}/l"]
        assert Path(getattr(localised(command, *SEGFORMER, *flags), key)).read_bytes() == b"b"

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ([], "holds a.ckpt, b.ckpt; name one of its checkpoints with pretrain_ckpt"),
            (["--checkpoint=c.ckpt"], "name one .* with pretrain_ckpt, which is c.ckpt now"),
            (["--checkpoint_url=s3://{bucket}/nothing"], "holds nothing"),
            (["--checkpoint_url=/The path of checkpoint in S3/"], "is neither here nor an obs:// or s3:// address"),
        ],
    )
    def test_mistakes_are_one_sentence(self, bucket, cache, flags, words):
        for name in ("a", "b"):
            bucket.write(f"model/{name}.ckpt", b"")
        flags = [f"--checkpoint_url=s3://{bucket.name}/model", *[flag.format(bucket=bucket.name) for flag in flags]]
        with pytest.raises(UsageError, match=words):
            localised("eval", *MOBILENET, *cache, *flags)


class TestResults:
    def test_they_lie_below_the_output_folder_and_arrive(self, stored, cache, tmp_path):
        scheme, bucket = stored
        flags = [f"--train_url={scheme}://{bucket.name}/out/", "--file_name=mobilenetv2", "--file_format=MINDIR"]
        cfg = zoo.configure("export", ["--enable_modelarts=True", *MOBILENET, *cache, *flags])
        with job.opened("export", cfg) as local:
            assert local.file_name == f"{tmp_path}/cache/train/mobilenetv2"
            Path(local.file_name).with_suffix(".mindir").write_bytes(b"exported")
        assert bucket.read("out/mobilenetv2.mindir") == b"exported"

    @pytest.mark.parametrize("asked", [False, True])
    @pytest.mark.parametrize(("model", "reads"), [("mobilenetv2", True), ("segformer", False)])
    def test_an_export_copies_the_data_only_to_compare_on_them(self, bucket, tmp_path, capsys, model, reads, asked):
        bucket.write("data/Pets.zip", zip_of())
        keys = importlib.import_module(f"src.{model}.config").Config.job_keys()
        local = f"{tmp_path}/cache/data"
        flags = [f"--data_url=s3://{bucket.name}/data", f"--train_url={tmp_path}/out", f"--load_path={tmp_path}/load"]
        flags += ["--modelarts_dataset_unzip_name=Pets", f"--{keys.local_data}={local}"]
        flags += [f"--{keys.data}={local}"] if asked else []
        cfg = localised("export", *(SEGFORMER if model == "segformer" else MOBILENET), *flags)
        assert Path(local, "Pets").exists() == (asked and reads)
        assert (getattr(cfg, keys.data) == f"{local}/Pets") == (asked and reads)
        assert ("this export needs no data" in capsys.readouterr().out) != (asked and reads)

    def test_a_used_address_is_refused_for_a_new_run_and_taken_for_a_resumed_one(self, stored, cache, tmp_path):
        scheme, bucket = stored
        bucket.write("out/checkpoint/mobilenetv2-1_4.ckpt", b"epoch 1")
        bucket.write("out/checkpoint/train.log", b"older")
        bucket.write("out/notes.txt", b"another file")
        flags = [*MOBILENET, *cache, f"--train_url={scheme}://{bucket.name}/out"]
        with pytest.raises(UsageError, match="holds the files of an earlier run .*resume=auto or give another"):
            localised("train", *flags)
        log = tmp_path / "cache/train/checkpoint/train.log"
        log.parent.mkdir(parents=True)
        log.write_bytes(b"newer, on this server")
        cfg = localised("train", *flags, "--resume=auto")
        assert Path(cfg.save_checkpoint_path, "mobilenetv2-1_4.ckpt").read_bytes() == b"epoch 1"
        assert bucket.read("out/checkpoint/train.log") == b"newer, on this server"

    @pytest.mark.parametrize("name", ["mobilenetv2-1_4.ckpt", "checkpoint/mobilenetv2-1_4.ckpt"])
    def test_a_resumed_checkpoint_is_named_as_it_is_stored(self, bucket, cache, name):
        bucket.write("out/checkpoint/mobilenetv2-1_4.ckpt", b"epoch 1")
        cfg = localised("train", *MOBILENET, *cache, f"--train_url=s3://{bucket.name}/out", f"--resume={name}")
        assert Path(cfg.resume).read_bytes() == b"epoch 1"

    @pytest.mark.parametrize(
        ("resume", "later"),
        [
            ("mobilenetv2-2_4.ckpt", "mobilenetv2-10_4.ckpt"),
            ("mobilenetv2-10_3.ckpt", "mobilenetv2-10_4.ckpt"),
            ("/elsewhere/mobilenetv2-9_4.ckpt", "mobilenetv2-10_4.ckpt"),
            ("/elsewhere/renamed.ckpt", "mobilenetv2-10_4.ckpt"),
            ("mobilenetv2-10_4.ckpt", ""),
            ("mobilenetv2_head_1.ckpt", ""),
        ],
    )
    def test_going_back_to_an_earlier_checkpoint_would_mix_two_runs(self, bucket, cache, resume, later):
        """The store would keep the later checkpoints, and the next resume=auto would take them."""
        for name in ("mobilenetv2-2_4", "mobilenetv2-10_3", "mobilenetv2-10_4", "mobilenetv2_head_1"):
            bucket.write(f"out/checkpoint/{name}.ckpt", b"")
        flags = [*MOBILENET, *cache, f"--train_url=s3://{bucket.name}/out", f"--resume={resume}"]
        if not later:
            assert Path(localised("train", *flags).resume).is_file()
            return
        with pytest.raises(UsageError, match=f"holds {later}, which is later than .*; give another train_url or"):
            localised("train", *flags)

    @pytest.mark.parametrize("resume", ["auto", "mobilenetv2-12_4.ckpt"])
    def test_of_a_run_that_goes_on_only_the_checkpoints_that_it_keeps_come_back(self, bucket, cache, tmp_path, resume):
        names = [f"mobilenetv2-{epoch}_4.ckpt" for epoch in range(1, 13)] + ["mobilenetv2_head_1.ckpt"]
        for name in (*names, "mobilenetv2-best.ckpt", "train.log", "previous.txt"):
            bucket.write(f"out/checkpoint/{name}", b"x")
        flags = [f"--train_url=s3://{bucket.name}/out", "--keep_checkpoint_max=3", f"--resume={resume}"]
        localised("train", *MOBILENET, *cache, *flags)
        assert sorted(path.name for path in (tmp_path / "cache/train/checkpoint").iterdir()) == sorted(
            [*names[9:], "mobilenetv2-best.ckpt", "train.log", "previous.txt"]
        )

    @pytest.mark.parametrize("command", ["train", "export"])
    def test_results_need_a_place(self, cache, command):
        with pytest.raises(UsageError, match="train_url is not set"):
            localised(command, *MOBILENET, *cache)

    @pytest.mark.parametrize("value", ["/elsewhere/run", "../run"])
    def test_a_place_that_would_not_be_sent(self, bucket, cache, value):
        with pytest.raises(UsageError, match="would not reach train_url; give a relative path"):
            localised(
                "train", *MOBILENET, *cache, f"--train_url=s3://{bucket.name}/o", f"--save_checkpoint_path={value}"
            )

    def test_other_ranks_send_nothing(self, bucket, cache, tmp_path, monkeypatch):
        monkeypatch.setenv("RANK_ID", "1")
        cfg = zoo.configure(
            "export", ["--enable_modelarts=True", *MOBILENET, *cache, f"--train_url=s3://{bucket.name}/out"]
        )
        with job.opened("export", cfg) as local:
            Path(local.file_name).write_bytes(b"")
        assert not bucket.keys()


class TestParameters:
    @pytest.mark.parametrize("model", zoo.MODELS)
    def test_every_model_says_which_of_its_keys_a_job_uses(self, model):
        config_class = importlib.import_module(f"src.{model}.config").Config
        keys, known = config_class.job_keys(), options_of(config_class)
        named = [keys.data, *keys.more_data, *keys.more_files, keys.local_data, keys.run_folder, *keys.results]
        named += [key for some in keys.checkpoints.values() for key in some]
        named += ["data_url", "train_url", "checkpoint_url", "output_path", "load_path", "enable_modelarts"]
        named += ["need_modelarts_dataset_unzip", "modelarts_dataset_unzip_name"]
        assert set(named) <= set(known)
        assert {key for key, option in known.items() if option.is_input} <= set(named)  # all that is read comes along
        aliases = {alias for option in known.values() for alias in (*option.aliases,)} | set(known)
        assert {"distribute", "checkpoint", "pretrain_ckpt", "file_name", "file_format"} <= aliases

    def test_what_the_platform_adds_is_named_without_its_value_and_ignored(self, capsys):
        flags = [
            "--enable_modelarts=True",
            *MOBILENET,
            "--train_url=/out",
            "--init_method=tcp://1.2.3.4:5",
            "--ak",
            SECRET,
        ]
        cfg = zoo.configure("train", flags)
        assert cfg.train_url == "/out"
        said = capsys.readouterr().err
        assert "--init_method, --ak" in said and SECRET not in said and "1.2.3.4" not in said

    @pytest.mark.parametrize("model", [MOBILENET, SEGFORMER])
    @pytest.mark.parametrize(
        ("typed", "meant"), [("'Pets'", "Pets"), ('"Pets"', "Pets"), ("'Pets", "'Pets"), ("'", "'")]
    )
    def test_quotes_that_were_typed_into_the_platform_do_not_count(self, tmp_path, model, typed, meant):
        flags = [f"--modelarts_dataset_unzip_name={typed}", f"--file_name={typed}", f"--train_url={tmp_path}/out"]
        flags.append(f"--{'data_dir' if model is SEGFORMER else 'data_path'}={tmp_path}/data")
        cfg = localised("export", *model, *flags)
        assert cfg.modelarts_dataset_unzip_name == meant
        assert getattr(cfg, "export_name" if model is SEGFORMER else "file_name") == f"{tmp_path}/out/{meant}"

    def test_a_value_that_looks_like_a_flag_is_not_named_either(self, capsys):
        zoo.configure("train", ["--enable_modelarts=True", *MOBILENET, "--train_url=/out", "--token", f"-{SECRET}"])
        said = capsys.readouterr().err
        assert "--token" in said and SECRET not in said

    @pytest.mark.parametrize("kind", [PermissionError, KeyError])
    def test_a_traceback_shows_no_credentials(self, bucket, cache, monkeypatch, capsys, kind):
        """Neither of an error that the store reports nor of one that nobody expects."""

        def fail(*arguments, **options):
            raise kind(f"denied for {SECRET}")

        target = "s3fs.S3FileSystem.find" if kind is PermissionError else "src.cloud.inputs.open_store"
        monkeypatch.setattr(target, fail)
        flags = ["--enable_modelarts=True", *MOBILENET, *cache, f"--data_url=s3://{bucket.name}/data", "--debug"]
        assert zoo.run("eval", flags) == 1
        said = capsys.readouterr().err
        assert "Traceback" in said and "denied for ***" in said and SECRET not in said

    def test_only_in_a_job(self):
        with pytest.raises(UsageError, match="unknown flag '--init_method'"):
            zoo.configure("train", [*MOBILENET, "--init_method=x"])

    def test_unknown_keys_of_a_file_are_errors_even_so(self, tmp_path):
        path = tmp_path / "c.yaml"
        path.write_text(f"__BASE__: {zoo.ROOT / 'default_config_cpu.yaml'}\nenable_modelarts: True\nepoch_sise: 3\n")
        with pytest.raises(UsageError, match="did you mean 'epoch_size'"):
            zoo.configure("train", ["--config_path", str(path)])
