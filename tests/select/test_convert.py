import json

import pytest

from mig_jax.core.errors import UserError
from mig_jax.pool.convert import LAYOUTS, check_layout, converted_line
from mig_jax.pool.dataset_info import dataset_info

DIALOG = [("system", "Be kind."), ("user", "1?"), ("assistant", "2"), ("user", "3?"), ("assistant", "4")]


def converted(layout, dialog=DIALOG):
    line = converted_line(dialog, layout, "pool.jsonl:7")
    assert b"\n" not in line
    return json.loads(line)


def test_role_and_content_layouts():
    turns = [{"role": role, "content": text} for role, text in DIALOG]
    assert converted("mig") == {"dialogs": turns}
    assert converted("openai") == {"messages": turns}


def test_sharegpt():
    names = ["system", "human", "gpt", "human", "gpt"]
    turns = [{"from": name, "value": text} for name, (_, text) in zip(names, DIALOG, strict=True)]
    assert converted("sharegpt") == {"conversations": turns}
    with pytest.raises(UserError, match=r"pool\.jsonl:7: role 'critic'"):
        converted("sharegpt", [("critic", "no")])


def test_alpaca():
    assert converted("alpaca") == {
        "instruction": "3?",
        "input": "",
        "output": "4",
        "system": "Be kind.",
        "history": [["1?", "2"]],
    }
    joined = converted("alpaca", [("user", "a"), ("user", "b"), ("assistant", "c")])
    assert joined["instruction"] == "a\n\nb" and joined["history"] == []


@pytest.mark.parametrize("roles", [["user"], ["assistant", "user"], ["user", "tool", "assistant"], ["system"]])
def test_alpaca_refuses_what_it_cannot_say(roles):
    with pytest.raises(UserError, match=r"pool\.jsonl:7: turns .*sharegpt and openai"):
        converted("alpaca", [(role, "x") for role in roles])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_dialog_is_refused_and_broken_text_is_not(layout):
    with pytest.raises(UserError, match=r"pool\.jsonl:7: no dialog"):
        converted(layout, [])
    converted(layout, [("user", "\ud800"), ("assistant", "line\nbreak")])


def test_unknown_layout():
    check_layout(None)
    with pytest.raises(UserError, match=r"export\.layout=csv.*mig, sharegpt, openai, alpaca"):
        check_layout("csv")


def test_dataset_info_of_mig_is_exactly_this():
    assert json.dumps(dataset_info({"run": "selection.jsonl"}, "mig")) == json.dumps(
        {
            "run": {
                "file_name": "selection.jsonl",
                "formatting": "sharegpt",
                "columns": {"messages": "dialogs"},
                "tags": {
                    "role_tag": "role",
                    "content_tag": "content",
                    "user_tag": "user",
                    "assistant_tag": "assistant",
                    "system_tag": "system",
                },
            }
        }
    )


def test_dataset_info_of_the_others():
    sharegpt = dataset_info({"run": "s.jsonl"}, "sharegpt")["run"]
    assert sharegpt["columns"] == {"messages": "conversations"}
    assert (sharegpt["tags"]["role_tag"], sharegpt["tags"]["user_tag"]) == ("from", "human")
    openai = dataset_info({"run": "s.jsonl"}, "openai")["run"]
    assert openai["formatting"] == "sharegpt" and openai["columns"] == {"messages": "messages"}
    assert dataset_info({"run": "s.jsonl"}, "alpaca")["run"] == {
        "file_name": "s.jsonl",
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output"},
    }
    with pytest.raises(UserError, match="csv"):
        dataset_info({}, "csv")


def test_dataset_info_says_the_columns_that_conversion_writes():
    columns = dataset_info({"run": "s.jsonl"}, "alpaca", converted=True)["run"]["columns"]
    assert set(columns.values()) == set(converted("alpaca"))
    # An entry is its own: the next one must not see the additions.
    assert "system" not in dataset_info({"run": "s.jsonl"}, "alpaca")["run"]["columns"]


def test_dataset_info_follows_the_users_own_keys():
    entry = dataset_info({"run": "s.jsonl"}, "mig", keys={"dialog": "talk", "role": "who", "content": ""})["run"]
    assert entry["columns"] == {"messages": "talk"}
    assert (entry["tags"]["role_tag"], entry["tags"]["content_tag"]) == ("who", "content")
