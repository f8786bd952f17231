def test_all(pretrained, finetuned):
    import json
    print(json.loads((pretrained/"summary.json").read_text())["validation_loss"], (pretrained/"summary.json").read_text()[:600])
    print(json.loads((finetuned/"evaluation.json").read_text())["accuracy"])
