"""MMLU: four-choice questions on 57 subjects in four categories, in Russian and in English."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from darumeru.data.bundle import Row
from darumeru.scoring.aggregate import Aggregate, accuracy, category_mean, macro_mean
from darumeru.task import ChoiceTask


class Subject(NamedTuple):
    """A subject of MMLU."""

    category: str
    russian: str


def _subjects(table: Mapping[str, Mapping[str, str]]) -> dict[str, Subject]:
    return {key: Subject(category, name) for category, names in table.items() for key, name in names.items()}


SUBJECTS = _subjects(
    {
        "STEM": {
            "abstract_algebra": "общая алгебра",
            "astronomy": "астрономия",
            "college_biology": "биология, вузовский курс",
            "college_chemistry": "химия, вузовский курс",
            "college_computer_science": "информатика, вузовский курс",
            "college_mathematics": "математика, вузовский курс",
            "college_physics": "физика, вузовский курс",
            "computer_security": "компьютерная безопасность",
            "conceptual_physics": "основные понятия физики",
            "electrical_engineering": "электротехника",
            "elementary_mathematics": "элементарная математика",
            "high_school_biology": "биология, школьный курс",
            "high_school_chemistry": "химия, школьный курс",
            "high_school_computer_science": "информатика, школьный курс",
            "high_school_mathematics": "математика, школьный курс",
            "high_school_physics": "физика, школьный курс",
            "high_school_statistics": "статистика, школьный курс",
            "machine_learning": "машинное обучение",
        },
        "humanities": {
            "formal_logic": "формальная логика",
            "high_school_european_history": "история Европы, школьный курс",
            "high_school_us_history": "история США, школьный курс",
            "high_school_world_history": "всемирная история, школьный курс",
            "international_law": "международное право",
            "jurisprudence": "теория права",
            "logical_fallacies": "логические ошибки",
            "moral_disputes": "спорные вопросы морали",
            "moral_scenarios": "нравственная оценка поступков",
            "philosophy": "философия",
            "prehistory": "первобытная история",
            "professional_law": "право для юристов",
            "world_religions": "религии мира",
        },
        "social sciences": {
            "econometrics": "эконометрика",
            "high_school_geography": "география, школьный курс",
            "high_school_government_and_politics": "государство и политика, школьный курс",
            "high_school_macroeconomics": "макроэкономика, школьный курс",
            "high_school_microeconomics": "микроэкономика, школьный курс",
            "high_school_psychology": "психология, школьный курс",
            "human_sexuality": "сексуальность человека",
            "professional_psychology": "психология для специалистов",
            "public_relations": "связи с общественностью",
            "security_studies": "международная безопасность",
            "sociology": "социология",
            "us_foreign_policy": "внешняя политика США",
        },
        "other": {
            "anatomy": "анатомия",
            "business_ethics": "деловая этика",
            "clinical_knowledge": "клиническая медицина",
            "college_medicine": "медицина, вузовский курс",
            "global_facts": "факты о мире",
            "human_aging": "старение человека",
            "management": "менеджмент",
            "marketing": "маркетинг",
            "medical_genetics": "медицинская генетика",
            "miscellaneous": "разное",
            "nutrition": "питание",
            "professional_accounting": "бухгалтерский учёт для специалистов",
            "professional_medicine": "медицина для врачей",
            "virology": "вирусология",
        },
    }
)
"""Key → category, as Hendrycks et al. (2021, arXiv 2009.03300) assign the 57 subjects, and name in Russian."""


class Mmlu(ChoiceTask):
    """Accuracy: the mean over the four categories of the mean over their subjects; STEM's 18 of 57 subjects weigh a quarter.

    Beside it `acc_macro`, the mean over the subjects, and `acc_plain`, over the questions.
    """

    METRICS = {"acc": category_mean, "acc_macro": macro_mean, "acc_plain": accuracy}
    SCORING = 2

    @property
    def metrics(self) -> dict[str, Aggregate]:
        """The metrics; without strata (a tenth of the questions has too few of a subject) plain accuracy alone."""
        return super().metrics if self.options.stratify or self.likelihood else {"acc": accuracy}

    def fields(self, doc: Row) -> dict[str, Any]:
        """Return the row's fields and `subject_ru`, the subject's name in Russian."""
        return {**super().fields(doc), "subject_ru": self.subject(doc).russian}

    def subject(self, doc: Row) -> Subject:
        """Return the subject of a row.

        Raises:
            ValueError: it is none of the 57.
        """
        found = SUBJECTS.get(doc["subject"])
        if found is None:
            raise ValueError(f"field 'subject': '{doc['subject']}' is none of MMLU's 57 subjects")
        return found

    def stratum(self, doc: Row) -> str | None:
        """Return category and subject."""
        return f"{self.subject(doc).category}/{doc['subject']}" if self.options.stratify else None
