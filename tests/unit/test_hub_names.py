"""Where on the hub each task's rows are, held against a list: a name that is wrong there fails only where there is a hub."""

from darumeru.task.suite import Catalogue

OURS = "RefalMachine/darumeru"
PLACES = {
    "rummlu": (OURS, "rummlu", "test", "prompt"),
    "mmlu_ru": (OURS, "mmlu_nlpcoreteam", "test", "dev"),
    "mmlu_en": (OURS, "mmlu_nlpcoreteam", "test", "dev"),
    "multiq": (OURS, "multiq", "test", "prompt"),
    "parus": (OURS, "parus", "test", "prompt"),
    "rcb": (OURS, "rcb", "test", "prompt"),
    "rwsd": (OURS, "rwsd", "test", "prompt"),
    "use": (OURS, "use", "test", "prompt"),
    "ruopenbookqa": (OURS, "ruopenbookqa", "test", "prompt"),
    "ruworldtree": (OURS, "ruworldtree", "test", "prompt"),
    "rucola": ("RussianNLP/rucola", None, "validation", "train"),
    "sum_abstractive": ("dichspace/daru_treeway_eval", None, "test", "prompt"),
    "sum_extractive": ("dichspace/daru_treeway_eval", None, "test"),
    "cp_sent_en": (OURS, "cp_sent_en", "test", "prompt"),
    "cp_para_en": (OURS, "cp_para_en", "test", "prompt"),
    "cp_sent_ru": (OURS, "cp_sent_ru", "test", "prompt"),
    "cp_para_ru": (OURS, "cp_para_ru", "test", "prompt"),
    "cp_doc_ru": (OURS, "cp_doc_ru", "test", "prompt"),
    "flores_ru_en": (OURS, "flores", "test", "prompt"),
    "flores_en_ru": (OURS, "flores", "test", "prompt"),
    "gazeta": ("IlyaGusev/gazeta", None, "test", "validation"),
    "rutie": (OURS, "rutie", "test"),
    "ruscibench_grnti_ru": (OURS, "ruscibench_grnti_ru", "test", "prompt"),
}
"""Task → repository, configuration, test split, few-shot split (as the spec's table and the repositories' cards have them)."""


def test_every_task_reads_the_data_set_that_it_should() -> None:
    catalogue = Catalogue()
    names = [*catalogue.suite("darumeru").tasks, *catalogue.suite("darumeru-extended").tasks]
    found = {
        name: (task.config.dataset_path, task.config.dataset_name, *task.splits())
        for name, task in catalogue.load(names).items()
    }
    assert found == PLACES
