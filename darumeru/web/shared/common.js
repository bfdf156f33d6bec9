"use strict";
// What every page shares: data that scripts hand over, language, light and dark, small helpers. No page uses innerHTML.
const store = new Map(), waiting = new Map();
window.daru = (name, value) => {
  store.set(name, value);
  (waiting.get(name) || []).forEach((f) => f(value));
  waiting.delete(name);
};
const TEXT = {
  en: {
    theme_auto: "Auto", theme_light: "Light", theme_dark: "Dark", other_lang: "Русский", all: "all", zero: "zero-shot", few: "few-shot",
    instruct: "instruct", foundation: "foundation", model: "Model", set_col: "Setting", rank: "Rank", coverage: "Tasks", date: "Date",
    params: "Parameters", vsize: "Vocabulary", tps: "Tokens/s", spt_ru: "Sym/token RU", spt_en: "Sym/token EN", choose: "Choose to compare",
    pool_runs: "Runs · data: {title}", pool_runs_note: "all on the same documents; ranks hold here",
    pool_published: "Published in the paper · {title}", pool_published_note: "reference values: no interval, no rank; DaruCopy probably by the older lcs, the share of the answer, by which a copy cut short scores 1",
    pool_incomplete: "Incomplete runs", pool_incomplete_note: "never ranked; groups only where all their tasks were run",
    shown: "{n} of {all} rows", chosen_n: "{n} chosen", no_rows: "No row fits these filters.", tie: "shared with {n} more",
    sz_unknown: "not stated", sz_s: "under 1 B", sz_m: "1 – 8 B", sz_l: "over 8 B", open_run: "Open the run", published: "paper",
    f_groups: "Groups", f_symbols: "Score and symbols per token", f_heat: "Model × task", f_steps: "Over steps", f_tokens: "Over tokens",
    fig_note: "Models: {n}, {what}.", fig_chosen: "the chosen ones", fig_first: "the first of the section “{title}” after the filters",
    fig_none: "Nothing to draw: no model here has these values.", untested: "not tested", significant: "significant", chance: "may be chance",
    difference: "Difference from {name}: {d} ({how})", interval: "{v}, 95 % interval {l} to {h}", sort_up: "sorted ascending", sort_down: "sorted descending",
    b_mini: "mini data", b_mini_text: "Evaluated on the small built-in or another mini bundle: for trying out. Not comparable with published scores.",
    b_limit: "at most {n} a task", b_limit_text: "Only a seeded sample of {n} documents a task was asked.",
    b_wording: "own prompt template", b_wording_text: "The prompt templates of these tasks were overridden: {tasks}. Scores depend on them.",
    imported: "Imported: tasks of other tools", imported_text: "Results of other tools on tasks that are not the suite's; intervals are made from their samples. Not ranked.", imported_from: "Imported from",
    b_imported: "imported", b_imported_text: "Evaluated by another tool ({tool}) and imported: prompts and engine are that tool's; scored here from its answers where the task is ours.",
    b_stated: "values as stated", b_stated_text: "The values of the documents of these tasks are those that {tool} states: {tasks}.",
    b_suite: "other suite", b_suite_text: "This run evaluated another suite: {name}.",
    b_failed: "failed tasks", b_failed_text: "These tasks failed: {tasks}.",
    b_unreproduced: "not reproducible", b_unreproduced_text: "The stored samples do not give the recorded score of: {tasks}.",
    b_other_setting: "{value}", b_other_setting_text: "Asked {value}; most runs of this section: {usual}.",
    b_other_engine: "engine {value}", b_other_engine_text: "Computed with {value}; most runs of this section with {usual}.",
    b_other_dtype: "{value}", b_other_dtype_text: "Computed in {value}; most runs of this section in {usual}.",
    b_other_max_prompt_len: "prompts to {value}", b_other_max_prompt_len_text: "Longest prompt {value} tokens; most runs of this section {usual}.",
    b_other_generation: "other generation", b_other_generation_text: "Generated with {value}; most runs of this section with {usual}.",
    b_approximate_answers: "{n} approximate", b_approximate_answers_text: "{n} answers are approximate: the server gives no exact ones ({tasks}).",
    b_truncated_prompts: "{n} prompts truncated", b_truncated_prompts_text: "{n} prompts were too long and were truncated on the left ({tasks}).",
    b_thinking_on: "thinks, up to {budget}", b_thinking_on_text: "The model thinks before it answers, for at most {budget} tokens. A row with thinking off is another run.",
    b_thinking_off: "thinking off", b_thinking_off_text: "The model can think before it answers, and was told not to.",
    b_unfinished_thoughts: "{share} unfinished", b_unfinished_thoughts_text: "{n} thoughts ({share} of the requests) did not end within the budget; their answers are empty and count as wrong ({tasks}). Score on finished answers: {score}.",
    b_rethought_answers: "{n} thoughts in answers", b_rethought_answers_text: "{n} answers open or close a thought of their own, which counts as their text ({tasks}).",
    thinking_on: "thinks, {n} tokens", thinking_off: "thinking off", set_thinking_on: "thinking on", set_thinking_off: "thinking off", off: "off",
    cost: "Tokens/doc", secs: "Seconds/doc", unfinished: "Unfinished", finished: "On finished", f_thinking: "Score and cost of thinking",
    thought: "Thought", thought_n: "Thought {n}", no_end: "did not end", behind: "put behind it",
    b_ties: "{n} ties", b_ties_text: "For {n} questions two labels were exactly equally probable; the first counts ({tasks}).",
    b_empty_answers: "{n} empty answers", b_empty_answers_text: "{n} generated answers are empty ({tasks}).",
    b_cut_answers: "answers at the limit", b_cut_answers_text: "More than half of the answers hit max_tokens in: {tasks}.",
    right: "right", wrong: "wrong", partly: "partly right", answer: "Answer", gold: "Gold", prompt: "Prompt", chosen_label: "chosen",
    prompt_n: "Prompt {n}", answer_n: "Answer {n}", tokens: "{n} tokens", tokens_cut: "{n} tokens, {t} truncated", ended: "ended by itself", at_limit: "cut at the limit",
    logprobs: "Log-probabilities", sample: "Sample", found: "{n} of {all} samples", searching: "searched {a} of {b} pieces",
    question: "Question", question_n: "Question {n}", label: "Label", stands_for: "Stands for", copy_link: "Copy link", copied: "Link copied: {name}", copy_by_hand: "The link is in the address bar.",
    no_such_sample: "This run has no such sample.", no_such_row: "This board has no row {id}.", live: "live", live_running: "{name}: {n} answers so far", live_built: "live · built {at}", live_lost: "not live: the server does not answer", live_failed: "live · the newest build failed, this is the one before",
    no_samples: "No sample fits.", samples_of: "Samples: {task}", empty: "(empty)", missing: "The file {name} could not be loaded.", examples: "{n} examples",
  },
  ru: {
    skip: "К содержанию", theme: "Светлая или тёмная", theme_auto: "Авто", theme_light: "Светлая", theme_dark: "Тёмная", other_lang: "English", made_with: "Сделано в",
    deck: "Языковые модели, адаптированные к русскому: что они знают и насколько устойчиво пишут. У каждой оценки — интервал, у каждого места — проверка, за каждым числом — примеры.",
    n_runs: "запусков", n_published: "строк из статьи", n_tasks: "задач", against: "разность с", newest: "последний запуск", table: "Таблица", search: "Поиск",
    section: "Раздел", setting: "Режим", size: "Размер", vocab: "Словарь", sort_by: "Порядок", show_tasks: "Все задачи", only_chosen: "Только выбранные", reset: "Сбросить",
    chosen: "Выбранные модели рядом", side_note: "Пересечение интервалов не означает, что модели равны: парная проверка на тех же документах видит больше. Её делает «darumeru compare A B».",
    figures: "Графики", figure_files: "Графики файлами", how: "Как это читать", how_rank: "Место",
    how_rank_text: "Модели делят место, если их нельзя отличить от лучшей на этом месте: парный бутстрэп по тем же примерам с поправкой на число моделей не находит разницы на уровне 5 %. Места действуют внутри раздела, где все запуски отвечали на одни и те же документы.",
    how_interval: "Интервал", how_interval_text: "Черта через точку — 95 % интервал оценки: насколько она могла бы сдвинуться, будь документы другими, но такими же. Пары, варианты экзамена и диалоги берутся целиком.",
    how_mean_text: "Среднее по задачам ({n}), а не по группам. Есть только у полных запусков.", how_arrow: "Стрелки",
    how_arrow_text: "Если задана базовая модель, ▲ и ▼ отмечают разности, которые парная проверка считает значимыми (5 %, Холм по строке). Разность без стрелки может быть случайной; курсивом — не проверялась: документы не те же или примеров нет.",
    how_published: "Из статьи", how_published_text: "Строки статьи (таблицы 1–4) — справочные. Примеров за ними нет, поэтому нет ни интервала, ни места.", how_badges: "Метки",
    how_badges_text: "Метка показывает, чем запуск отличается от других в разделе или что ставит число под сомнение. Наведите курсор или нажмите, чтобы прочесть почему.",
    not_shown: "Не показаны", as_file: "Таблица файлом:", board: "Таблица лидеров", data: "данные", model_page: "страница модели", scores: "Оценки", task: "Задача", score: "Оценка",
    interval95: "95 % интервал", measure: "Мера", notes: "Замечания", note_approximate_answers: "приближённые ответы:", note_truncated_prompts: "обрезаны подсказки:", note_ties: "равные:", note_empty_answers: "пустые ответы:", note_cut_answers: "ответы до предела:", note_repeats: "стандартное отклонение между повторами:",
    units_note: "n — документы; в скобках независимые единицы там, где документы связаны (варианты экзамена).", facts_model: "Модель", facts_setting: "Настройки", facts_environment: "Окружение", card_note: "Для карточки модели на Hugging Face:",
    samples: "Примеры", show: "Показать", search_text: "Искать в запросах, ответах, эталонах", more: "Ещё", all: "все", zero: "zero-shot", few: "few-shot", instruct: "инструктивная", foundation: "базовая",
    model: "Модель", set_col: "Режим", rank: "Место", coverage: "Задачи", date: "Дата", params: "Параметры", vsize: "Словарь", tps: "Токенов/с", spt_ru: "Симв./токен RU", spt_en: "Симв./токен EN", choose: "Выбрать для сравнения",
    pool_runs: "Запуски · данные: {title}", pool_runs_note: "все на одних документах; места действуют здесь", pool_published: "Опубликовано в статье · {title}", pool_published_note: "справочные значения: без интервала и места; DaruCopy, вероятно, по прежней мере lcs — доле ответа, при которой и обрезанная копия получает 1",
    pool_incomplete: "Неполные запуски", pool_incomplete_note: "без места; группа есть, только если выполнены все её задачи", shown: "строк: {n} из {all}", chosen_n: "выбрано: {n}", no_rows: "Таких строк нет.", tie: "поделено ещё с {n}",
    sz_unknown: "не указан", sz_s: "до 1 млрд", sz_m: "1 – 8 млрд", sz_l: "свыше 8 млрд", open_run: "Открыть запуск", published: "статья",
    f_groups: "Группы", f_symbols: "Оценка и символы на токен", f_heat: "Модель × задача", f_steps: "По шагам", f_tokens: "По токенам", fig_note: "Моделей: {n} — {what}.", fig_chosen: "выбранные", fig_first: "первые из раздела «{title}» после отбора",
    fig_none: "Рисовать нечего: ни у одной модели здесь нет этих значений.", untested: "не проверялась", significant: "значима", chance: "может быть случайной", difference: "Разность с {name}: {d} ({how})", interval: "{v}, 95 % интервал от {l} до {h}", sort_up: "по возрастанию", sort_down: "по убыванию",
    b_mini: "малые данные", b_mini_text: "Оценено на малом наборе: для пробы. С опубликованными числами не сравнивать.", b_limit: "до {n} на задачу", b_limit_text: "Задано не более {n} документов на задачу (случайных, с зерном).",
    b_wording: "своя формулировка", b_wording_text: "Эти задачи сформулированы по-своему: {tasks}. Оценки зависят от формулировки.", imported: "Импорт: задачи других инструментов", imported_text: "Результаты других инструментов на задачах не из набора; интервалы построены по их ответам. Без мест.", imported_from: "Откуда", b_imported: "импорт", b_imported_text: "Оценено другим инструментом ({tool}) и импортировано: промпты и движок его; задачи набора оценены здесь заново по ответам.", b_stated: "значения оттуда", b_stated_text: "Значения по документам этих задач взяты из {tool}: {tasks}.", b_suite: "другой набор", b_suite_text: "Оценён другой набор задач: {name}.", b_failed: "сбой в задачах", b_failed_text: "Задачи со сбоем: {tasks}.",
    b_unreproduced: "не воспроизводится", b_unreproduced_text: "Сохранённые примеры не дают записанной оценки: {tasks}.", b_other_setting_text: "Задано так: {value}; у большинства раздела: {usual}.", b_other_engine: "движок {value}", b_other_engine_text: "Вычислено на {value}; у большинства раздела {usual}.",
    b_other_dtype_text: "Вычислено в {value}; у большинства раздела {usual}.", b_other_max_prompt_len: "запрос до {value}", b_other_max_prompt_len_text: "Длиннейший запрос {value} токенов; у большинства раздела {usual}.", b_other_generation: "иная генерация", b_other_generation_text: "Генерация: {value}; у большинства раздела {usual}.",
    b_approximate_answers: "приближённых: {n}", b_approximate_answers_text: "Приближённых ответов: {n} — точных сервер не даёт ({tasks}).",
    b_truncated_prompts: "обрезано запросов: {n}", b_truncated_prompts_text: "Запросов, потерявших начало из-за длины: {n} ({tasks}).",
    b_thinking_on: "думает, до {budget}", b_thinking_on_text: "Перед ответом модель думает, не более {budget} токенов. Строка без размышлений — другой запуск.",
    b_thinking_off: "без размышлений", b_thinking_off_text: "Модель умеет думать перед ответом, но ей велено отвечать сразу.",
    b_unfinished_thoughts: "не додумано: {share}", b_unfinished_thoughts_text: "Размышлений, не законченных в отведённый предел: {n} ({share} запросов); такие ответы пусты и неверны ({tasks}). Оценка на законченных ответах: {score}.",
    b_rethought_answers: "размышлений в ответах: {n}", b_rethought_answers_text: "Ответов, в которых начинается или кончается размышление: {n}; оно считается их текстом ({tasks}).",
    thinking_on: "думает, {n} токенов", thinking_off: "без размышлений", set_thinking_on: "с размышлениями", set_thinking_off: "без размышлений", off: "без",
    cost: "Токенов/док.", secs: "Секунд/док.", unfinished: "Не додумано", finished: "На законченных", f_thinking: "Оценка и цена размышлений",
    thought: "Размышление", thought_n: "Размышление {n}", no_end: "не закончено", behind: "после него вставлено",
    how_thinking: "Размышления", how_thinking_text: "Запуск с размышлениями и запуск без них — две строки. Размышление, не законченное в отведённый предел, оставляет пустой ответ, а он неверен; «на законченных» — оценка без таких документов, а они не случайная часть. Токены и секунды на документ — вместе с размышлениями.",
    note_unfinished_thoughts: "не додумано:", note_rethought_answers: "размышления в ответах:", note_finished: "на законченных ответах", facts_thinking: "Размышления",
    b_ties: "равных: {n}", b_ties_text: "Вопросов, где две метки в точности равновероятны: {n}; засчитана первая ({tasks}).", b_empty_answers: "пустых ответов: {n}", b_empty_answers_text: "Пустых ответов: {n} ({tasks}).", b_cut_answers: "ответы до предела", b_cut_answers_text: "Больше половины ответов упёрлись в предел длины: {tasks}.",
    right: "верно", wrong: "неверно", partly: "отчасти", answer: "Ответ", gold: "Эталон", prompt: "Запрос", chosen_label: "выбрано", prompt_n: "Запрос {n}", answer_n: "Ответ {n}", tokens: "токенов: {n}", tokens_cut: "токенов: {n}, обрезано {t}", ended: "закончен сам", at_limit: "обрезан по пределу", logprobs: "Логарифмы вероятностей", sample: "Пример",
    found: "примеров: {n} из {all}", searching: "просмотрено частей: {a} из {b}", no_samples: "Таких примеров нет.", every_sample: "Все примеры",
    question: "Вопрос", question_n: "Вопрос {n}", label: "Метка", stands_for: "Значение", copy_link: "Скопировать ссылку", copied: "Ссылка скопирована: {name}", copy_by_hand: "Ссылка — в адресной строке.", feed: "Лента изменений",
    no_such_sample: "В этом запуске нет такого примера.", no_such_row: "В таблице нет строки {id}.", live: "вживую", live_running: "{name}: пока ответов {n}", live_built: "вживую · собрано {at}", live_lost: "не вживую: сервер не отвечает", live_failed: "вживую · последняя сборка не удалась, это предыдущая",
    samples_of: "Примеры: {task}", empty: "(пусто)", missing: "Файл {name} не загрузился.", examples: "примеров в запросе: {n}",
    a_title: "Сравнение с судьёй", a_judge: "Судья", a_prompts: "запросов", a_tokens: "токенов в ответе, самое большее", a_pairs: "Пары", a_answers: "Ответы рядом",
    c_title: "Сравнение двух запусков", c_diff: "Разности", c_flips: "Примеры, что изменились", c_first: "Показаны самые большие изменения; все номера — в", c_3: "95 % интервал", c_6: "проверка", c_7: "видимая", c_8: "перемены",
    c_note: "Попарно по документам, на которые ответили оба. ▲ ▼: значимо на уровне 5 % после поправки Холма — отдельно по задачам и по группам. Видимая: разность, которую столько документов показывают с мощностью 80 %. Перемены: документы, где B лучше и где хуже.",
  },
};
const hash = () => new URLSearchParams(location.hash.slice(1));
const remember = (key, value) => { try { localStorage.setItem("darumeru-" + key, value); } catch { /* private mode */ } };
const recall = (key) => { try { return localStorage.getItem("darumeru-" + key); } catch { return null; } };
let lang = ["ru", "en"].find((l) => l === hash().get("lang")) || recall("lang") || (navigator.language.startsWith("ru") ? "ru" : "en");
if (!TEXT[lang]) lang = "en";
function t(key, values) {
  const text = TEXT[lang][key] ?? TEXT.en[key] ?? key;
  return values ? text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? "")) : text;
}
/** An element with attributes and children; strings become text, never markup. */
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}
/** A link to a part of this page, which copies its whole address when it is followed. */
function copyLink(fragment, name) {
  return el("a", { class: "copy", href: fragment, title: t("copy_link"), "aria-label": t("copy_link") + ": " + name, onclick: (e) => {
    e.preventDefault();
    const status = document.getElementById("status"), said = (key) => { if (status) status.textContent = t(key, { name }); };
    const by_hand = () => { history.replaceState(null, "", fragment); said("copy_by_hand"); };
    // The clipboard is there for files, this machine and https only.
    if (!navigator.clipboard) return by_hand();
    navigator.clipboard.writeText(new URL(fragment, location.href).href).then(() => said("copied"), by_hand);
  } }, "#");
}
function setHash(values) {
  const params = hash();
  for (const [key, value] of Object.entries(values)) value === "" || value === null ? params.delete(key) : params.set(key, value);
  const text = params.toString();
  history.replaceState(null, "", text ? "#" + text : location.pathname.split("/").pop() + location.search);
}
const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const themed = recall("theme");
if (themed === "light" || themed === "dark") document.documentElement.dataset.theme = themed;
const onChange = [];
function translate() {
  document.documentElement.lang = lang;
  for (const node of document.querySelectorAll("[data-t]")) {
    node.dataset.en ??= node.textContent;
    node.textContent = lang === "en" ? node.dataset.en : TEXT[lang][node.dataset.t]?.replace("{n}", node.dataset.n) ?? node.dataset.en;
  }
  const button = document.getElementById("lang"), theme = document.getElementById("theme");
  button.textContent = t("other_lang");
  button.lang = lang === "en" ? "ru" : "en";
  button.setAttribute("aria-label", t("other_lang"));
  theme.textContent = t("theme_" + (document.documentElement.dataset.theme || "auto"));
  onChange.forEach((f) => f());
}
/** Interval as a line with a dot, on a scale from 0 to 1; nothing for measures that go beyond it (bits, log-probabilities). */
function whisker(node, value, low, high) {
  node.hidden = !(low >= 0 && high <= 1);
  node.style.setProperty("--v", value);
  node.style.setProperty("--l", low);
  node.style.setProperty("--w", high - low);
  return node;
}
document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("lang").addEventListener("click", () => {
    lang = lang === "en" ? "ru" : "en";
    remember("lang", lang);
    setHash({ lang });
    translate();
  });
  document.getElementById("theme").addEventListener("click", () => {
    const order = ["", "light", "dark"], root = document.documentElement;
    const next = order[(order.indexOf(root.dataset.theme || "") + 1) % 3];
    if (next) root.dataset.theme = next; else delete root.dataset.theme;
    remember("theme", next);
    translate();
  });
  translate();
});
