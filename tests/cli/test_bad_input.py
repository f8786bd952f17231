"""Whatever is given to the command line: exit code 2, one clear line, no traceback, nothing half-written."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import tiny_world
from maskwright.tokens.tokenizer import Tokenizer


@pytest.fixture
def corpus(tmp_path):
    """A recipe for a corpus of given bytes."""

    def make(content, name="corpus.jsonl", **changes):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        values = {**tiny_world.prepare_values(path), **changes}
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({"prepare": values}))
        return recipe

    return make


@pytest.fixture
def recipe(data_folder, pretrained, labelled, tmp_path):
    """A recipe with every section but prepare."""
    path = tmp_path / "recipe.yaml"
    sections = {
        "pretrain": {**tiny_world.PRETRAIN, "data": str(data_folder)},
        "finetune": {**tiny_world.FINETUNE, "model": str(pretrained), "data": dict(labelled)},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


def assert_refused(result, *said):
    assert result.code == 2, result
    assert "Traceback" not in result.err + result.out
    assert "internal" not in result.err
    line = result.err.strip().splitlines()[-1]
    for part in said:
        assert part in result.err, result.err
    assert "error" in result.err.lower(), line


def assert_not_whole(folder):
    """Nothing in it may be taken for finished work."""
    for pattern in (
        "manifest.json",
        "summary.json",
        "evaluation.json",
        "export",
        "checkpoints/step-*/manifest.json",
    ):
        assert not list(folder.glob(pattern)), pattern


class TestCorpus:
    """Files that hold no text that could be prepared."""

    @pytest.mark.parametrize(
        ("content", "name", "said"),
        [
            (None, "nothing.jsonl", "nothing.jsonl: no such file or folder"),
            (b"", "empty.jsonl", "holds no documents; check that the files are not empty"),
            (b"\n\n", "blank.txt", "none of 1 documents was kept"),
            (b"\x00\x01\x02\xff" * 100, "binary.txt", "binary"),
            (b'{"text": 3}\n', "numbers.jsonl", '"text" is a int, expected a string'),
            (b'{"texts": "a"}\n', "keys.jsonl", 'has no "text"'),
            (b"not json\n" * 200, "lines.jsonl", "lines.jsonl"),
            (b'{"text": "only one document"}\n', "one.jsonl", "got none of 1 documents"),
        ],
    )
    def test_it_is_refused(self, corpus, command, tmp_path, content, name, said):
        output = tmp_path / "data"
        result = command("prepare", corpus(content, name), "-o", output)
        assert_refused(result)
        assert name in result.err or said in result.err
        assert_not_whole(output)

    def test_invalid_utf8_is_refused_where_strict_was_asked(self, corpus, command, tmp_path):
        recipe = corpus(b"fine\nbroken \xff here\n", "latin.txt")
        path = tmp_path / "latin.txt"
        override = f"corpus.sources=[{{path: {path}, encoding_errors: strict}}]"
        result = command("prepare", recipe, override, "-o", tmp_path / "data")
        assert_refused(result, "latin.txt", "UTF-8")
        assert_not_whole(tmp_path / "data")

    def test_a_folder_without_permission(self, corpus, command, tmp_path, monkeypatch):
        recipe = corpus(b"text\n", "a.txt")

        honest = Path.open

        def refuse(path, *arguments, **options):
            if path.name == "a.txt":
                raise PermissionError(13, "Permission denied")
            return honest(path, *arguments, **options)

        monkeypatch.setattr(Path, "open", refuse)
        result = command("prepare", recipe, "-o", tmp_path / "data")
        assert_refused(result, "a.txt: cannot be read (Permission denied)")

    def test_a_vocabulary_that_cannot_be(self, corpus, command, tmp_path):
        recipe = corpus(b'{"text": "a b c"}\n')
        result = command("prepare", recipe, "tokenizer.vocab_size=100", "-o", tmp_path / "data")
        assert_refused(result, '"tokenizer.vocab_size" is 100, expected greater than or equal to 261')

    def test_a_tokenizer_that_is_not_there(self, corpus, command, tmp_path):
        recipe = corpus(b'{"text": "a b c"}\n' * 50)
        result = command("prepare", recipe, f"tokenizer.path={tmp_path / 'none'}", "-o", tmp_path / "data")
        assert_refused(result, "none: has no tokenizer.json; give a folder that holds a tokenizer")
        assert_not_whole(tmp_path / "data")


class TestRecipes:
    """Names, keys and values that are wrong."""

    @pytest.mark.parametrize("verb", ["prepare", "pretrain", "finetune", "demo"])
    def test_an_unknown_recipe(self, command, tmp_path, verb):
        result = command(verb, "roberta-bse", "-o", tmp_path / "out")
        assert_refused(result, 'unknown recipe "roberta-bse"; did you mean "roberta-base"?')
        assert not (tmp_path / "out").exists()

    def test_a_file_that_is_not_there(self, command, tmp_path):
        result = command("pretrain", tmp_path / "mine.yaml")
        assert_refused(result, "mine.yaml: no such recipe file; check the path")

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("optimiser.lr=1", 'unknown key "optimiser"; did you mean "optimizer"?'),
            ("optimizer.lrr=1", 'unknown key "optimizer.lrr"; did you mean "lr"?'),
            ("optimizer.lr=fast", "\"optimizer.lr\" is 'fast', expected number"),
            ("steps=1.5", '"steps" is 1.5'),
            ("steps=0", '"steps" is 0, expected greater than or equal to 1'),
            ("steps=true", '"steps": is true, expected another kind of value'),
            (
                "model.size=huge",
                "\"model.size\" is 'huge', expected 'tiny', 'small', 'base', 'large', 'xl' or 'xxl'",
            ),
            ("precision=fp8", "\"precision\" is 'fp8', expected 'auto', 'fp32', 'bf16' or 'fp16'"),
            ("masking.random_share=0.5", "mask_share 0.8 and random_share 0.5 add up to more than 1"),
            (
                "model.num_attention_heads=3",
                "model: hidden_size 32 is not a multiple of num_attention_heads 3",
            ),
            ("steps.more=1", "steps is 24, which has no keys inside"),
            ("device=cuda", "torch sees no CUDA device; set device=cpu"),
        ],
    )
    def test_keys_and_values(self, command, recipe, tmp_path, override, said, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        result = command("pretrain", recipe, override, "-o", tmp_path / "out")
        assert_refused(result, said)
        assert_not_whole(tmp_path / "out")

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_a_learning_rate_that_diverges(self, command, recipe, tmp_path, precision):
        result = command(
            "pretrain", recipe, "optimizer.lr=1e30", f"precision={precision}", "-o", tmp_path / "out"
        )
        assert_refused(result, "the run has diverged: lower optimizer.lr or use precision=fp32")
        assert_not_whole(tmp_path / "out")

    def test_a_value_that_is_missing(self, command, tmp_path):
        result = command("pretrain", "-o", tmp_path / "out")
        assert_refused(
            result, 'defaults, section pretrain: "data" is missing; set it in the recipe or with data=...'
        )

    def test_something_that_is_no_override(self, command, recipe):
        result = command("pretrain", recipe, "steps")
        assert_refused(result, "'steps': is not an override, expected key.path=value")

    @pytest.mark.parametrize("content", ["pretrain: [", "- a", "pretrain: 3", "other: {}", "\xff"])
    def test_a_recipe_that_is_not_one(self, command, tmp_path, content):
        path = tmp_path / "bad.yaml"
        path.write_text(content, encoding="latin-1")
        assert_refused(command("pretrain", path), "bad.yaml: ")

    def test_a_section_that_is_not_there(self, command, recipe):
        assert_refused(command("prepare", recipe), "has no section 'prepare' (it has finetune, pretrain)")
        assert_refused(
            command("demo", recipe), 'has no section "prepare"; the demo needs prepare, pretrain, finetune'
        )

    def test_an_override_of_the_demo_names_its_section(self, command):
        assert_refused(
            command("demo", "demo", "steps=3"), "'steps=3': begins with \"steps\"; known: finetune"
        )

    @pytest.mark.parametrize("arguments", [["pretrain", "--resum"], ["predict"], ["inspect"], ["trian"]])
    def test_usage(self, command, arguments):
        assert_refused(command(*arguments), "Usage: maskwright")


class TestData:
    """Data folders that are damaged or do not fit."""

    @pytest.fixture
    def damaged(self, data_folder, tmp_path):
        return shutil.copytree(data_folder, tmp_path / "data")

    @pytest.fixture
    def pretrain(self, command, recipe, tmp_path):
        def run(folder, *more):
            result = command("pretrain", recipe, f"data={folder}", "-o", tmp_path / "run", *more)
            assert_not_whole(tmp_path / "run")
            return result

        return run

    def test_a_folder_that_is_not_finished(self, pretrain, tmp_path):
        assert_refused(
            pretrain(tmp_path / "none"), "none: has no manifest.json, so no finished data; run maskwright"
        )

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_a_flipped_bit(self, pretrain, damaged, split):
        path = damaged / split / "shard-00000.tokens"
        data = bytearray(path.read_bytes())
        data[50] ^= 1
        path.write_bytes(data)
        assert_refused(
            pretrain(damaged), f"{split}/shard-00000.tokens: is damaged (SHA-256 ", "the manifest says"
        )

    def test_a_truncated_shard(self, pretrain, damaged):
        path = damaged / "train" / "shard-00000.tokens"
        path.write_bytes(path.read_bytes()[:-2])
        assert_refused(
            pretrain(damaged), "shard-00000.tokens: has ", "; prepare the data again or restore the file"
        )

    @pytest.mark.parametrize(
        "name", ["train/shard-00000.documents", "token_counts.bin", "tokenizer/tokenizer.json"]
    )
    def test_a_missing_file(self, pretrain, damaged, name):
        (damaged / name).unlink()
        assert_refused(pretrain(damaged), name.rpartition("/")[2])

    def test_a_tokenizer_changed_after_the_shards_were_made(self, pretrain, damaged):
        Tokenizer.train(["other text"] * 3, 300).save(damaged / "tokenizer")
        assert_refused(pretrain(damaged), "tokenizer: was changed after the shards were made")

    def test_fewer_tokens_than_a_sequence(self, pretrain, data_folder):
        result = pretrain(data_folder, "sequence_length=9000", "model.max_position_embeddings=9002")
        assert_refused(result, "tokens, fewer than one sequence (8998 and two specials); add text or lower")


class TestOutputs:
    """Folders that are occupied."""

    def test_not_empty(self, command, recipe, pretrained, finetuned, data_folder, corpus_file):
        before = {folder: tiny_world.files_of(folder) for folder in (pretrained, finetuned, data_folder)}
        said = "is not empty; add --resume to go on, --overwrite to start again, or choose another folder"
        assert_refused(command("pretrain", recipe, "-o", pretrained), said)
        assert_refused(command("finetune", recipe, "-o", finetuned), said)
        assert_refused(command("prepare", "demo", "-o", data_folder), said)
        assert {folder: tiny_world.files_of(folder) for folder in before} == before

    @pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
    def test_a_folder_of_somebody_else(self, command, recipe, tmp_path, flag):
        folder = tmp_path / "photos"
        folder.mkdir()
        (folder / "holiday.jpg").write_text("dear")
        result = command("pretrain", recipe, flag, "-o", folder)
        assert_refused(result, "has no config.yaml", "choose another output")
        assert [path.name for path in folder.iterdir()] == ["holiday.jpg"]

    def test_what_a_refused_or_killed_start_left_is_no_hindrance(self, command, recipe, tmp_path):
        folder = tmp_path / "run"
        assert_refused(command("pretrain", recipe, "data=typo", "-o", folder), "typo: has no manifest.json")
        assert not folder.exists()
        folder.mkdir()
        (folder / "config.yaml.partial-0123abcd").write_text("form")
        (folder / "config.yaml").write_text("seed: 3\n")
        assert command("pretrain", recipe, "steps=1", "-o", folder).code == 0

    def test_both_flags(self, command, recipe, pretrained):
        result = command("pretrain", recipe, "--resume", "--overwrite", "-o", pretrained)
        assert_refused(result, "both resume and overwrite were asked for; choose one")

    def test_a_file(self, command, recipe, corpus_file):
        assert_refused(command("pretrain", recipe, "-o", corpus_file), "is a file, expected a folder")
        assert_refused(command("pretrain", recipe, "-o", corpus_file / "x"), "a part of the path is a file")

    def test_other_settings(self, command, recipe, pretrained):
        result = command("pretrain", recipe, "seed=5", "--resume", "-o", pretrained)
        assert_refused(
            result, "was begun with other settings (seed was 0, now 5); resume with the same settings"
        )


class TestModels:
    """Models that are missing, damaged, or of another kind."""

    def test_no_model(self, command, tmp_path, labelled):
        said = "holds no exported model; give a finished run or a Hugging Face folder"
        assert_refused(command("predict", tmp_path, "text"), said)
        assert_refused(command("evaluate", tmp_path, f"data={labelled['test']}"), said)

    def test_weights_that_are_damaged(self, command, finetuned, tmp_path):
        folder = shutil.copytree(finetuned / "export", tmp_path / "model")
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:500])
        assert_refused(command("predict", folder, "text"), "model.safetensors: cannot be read")

    def test_a_config_that_is_damaged(self, command, finetuned, tmp_path):
        folder = shutil.copytree(finetuned / "export", tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        for content, said in (
            (
                json.dumps({**config, "hidden_size": -3}),
                '"hidden_size" is -3, expected greater than or equal to 8',
            ),
            ("{", "is not valid JSON"),
            ("[]", "holds a list, expected the config of a model"),
            (json.dumps({**config, "id2label": {"7": "x"}}), "does not number its labels from 0"),
        ):
            (folder / "config.json").write_text(content)
            assert_refused(command("predict", folder, "text"), said)

    def test_a_label_that_training_never_saw(self, command, finetuned, tmp_path):
        rows = [{"text": "The rose", "label": "garden"}, {"text": "The moon", "label": "space"}]
        path = tiny_world.write_rows(tmp_path / "test.jsonl", rows)
        result = command("evaluate", finetuned, f"data={path}", "-o", tmp_path / "out")
        assert_refused(
            result, 'test.jsonl:2: the training data has no label "space"; known: garden, harbour, kitchen'
        )
        assert not (tmp_path / "out").exists()

    def test_an_evaluation_without_a_model(self, command):
        assert_refused(
            command("evaluate", "data=x"), "evaluate: no model was given; write maskwright evaluate FOLDER"
        )

    def test_a_length_that_the_model_does_not_take(self, command, pretrained, data_folder):
        result = command("evaluate", pretrained, f"data={data_folder}", "sequence_length=100")
        assert_refused(result, '"sequence_length" is 100, but ', "takes 64; lower it")

    def test_nothing_known_to_inspect(self, command, tmp_path):
        assert_refused(command("inspect", tmp_path), "holds no prepared data, run or model; check the path")
        assert_refused(command("inspect", tmp_path / "none"), "holds no prepared data, run or model")

    @pytest.mark.parametrize("number", ["-1", "100000"])
    def test_a_document_that_is_not_there(self, command, data_folder, number):
        result = command("inspect", data_folder, f"--document={number}")
        assert_refused(result, f"document {number} does not exist; train has ")


class TestPredictions:
    """Texts that cannot be answered for."""

    def test_both_texts_and_a_file(self, command, finetuned, tmp_path):
        result = command("predict", finetuned, "text", "-i", tmp_path / "a.txt")
        assert_refused(result, "both texts and --input were given; choose one")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "texts.txt: no such file; check the path"),
            (b"", "texts.txt: holds no text; give one text a line"),
            (b"\n\r\n\n", "texts.txt: holds no text; give one text a line"),
            (
                b"fine\nbr\xffken\n",
                "texts.txt:2: is not UTF-8 (invalid start byte); convert the text to UTF-8",
            ),
        ],
    )
    def test_files(self, command, finetuned, tmp_path, content, said):
        path = tmp_path / "texts.txt"
        if content is not None:
            path.write_bytes(content)
        result = command("predict", finetuned, "-i", path, "-o", tmp_path / "out.jsonl")
        assert_refused(result, said)
        assert not (tmp_path / "out.jsonl").exists()

    def test_arguments_that_are_no_text(self, command, finetuned):
        result = command("predict", finetuned, "a\udcffb")
        assert_refused(result, r"'a\udcffb': holds half of a surrogate pair")

    def test_a_text_without_a_mask(self, command, pretrained):
        result = command("predict", pretrained, "no mask")
        assert_refused(result, "'no mask': has no <mask>; write <mask> where a word is missing")
