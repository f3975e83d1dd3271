/* help: the pages that `kept COMMAND --help` and `kept help COMMAND` print. run and pull keep
 * theirs beside their code. A page fits a screen of 24 lines where it can. */
#include "bench/plan.h"
#include "cli/cli.h"
#include "cli/run_args.h"

#include <string.h>

static const char plan_page[] =
    "usage: kept plan --model NAME|FILE.gguf [options]\n"
    "       kept plan --layers N --heads N --head-size N [--kv-heads N] [options]\n"
    "The memory that a K/V cache takes, computed from a model's shape, and what fits.\n\n"
    "the model\n"
    "  --model NAME|FILE     a known shape (below) or any GGUF file that kept reads\n"
    "  --layers N --heads N --kv-heads N --head-size N   a shape (KV heads: as heads)\n"
    "  --window N            layers see only the last N tokens ...\n"
    "  --global-every N      ... except every N-th layer\n"
    "the use\n"
    "  --context LIST        tokens: 4000,4K,4Ki (K = 1000, Ki = 1024) [4K,128K]\n"
    "  --batch N             sequences at once [1]\n"
    "  --bits N              bits per element in the formula's rows [16]\n"
    "  --strategy SPEC       a strategy's figures too; give it several times\n"
    "  --chunk N             tokens per prefill chunk, for the peak [512]\n"
    "what fits\n"
    "  --memory SIZE         longest context and largest batch in this memory (80GB, 16GiB)\n"
    "  --weights SIZE        bytes taken by the weights [those of a file, else none]\n"
    "  --format table|json   [table]\n\n"
    "examples\n"
    "  kept plan --model llama-2-70b --context 4K,128K\n"
    "  kept plan --model qwen2.5-7b --memory 24GB --weights 5GB --strategy h2o@20%\n\n";

static const char ls_page[] =
    "usage: kept ls [AXIS] [--family F] [--cost C] [--needs TEXT] [--without TEXT]\n"
    "Lists what a spec may name, one line each, with what it needs from the engine.\n"
    "AXIS: score, weight, wrapper, allocator, protection, schedule, position, merge, codec,\n"
    "controller, read, rest, recipe.\n\n"
    "  --family F      window, attention, keys, passes (extra forward passes), learned,\n"
    "                  oracle, allocation\n"
    "  --cost C        the dearest thing it does: none, state (a number per slot), rows\n"
    "                  (reads keys or values once), queries (slots times queries), passes\n"
    "  --needs TEXT    what it needs has TEXT in it, as 'keys' or 'trained'\n"
    "  --without TEXT  what it needs has not\n\n"
    "examples\n"
    "  kept ls\n"
    "  kept ls score --family attention --cost state\n"
    "  kept ls allocator --without trained\n";

static const char show_page[] =
    "usage: kept show SPEC|NAME\n"
    "A spec resolved: every option with its value, when it evicts, what it needs, papers and\n"
    "deviations from them. A bare NAME from 'kept ls' prints its options, defaults and ranges.\n\n"
    "examples\n"
    "  kept show 'snapkv(window=16)+ada@25%'\n"
    "  kept show streaming\n";

static const char check_page[] =
    "usage: kept check [--quick] [--format table|json]\n"
    "Verifies every kernel level that this CPU runs against double precision, times it, and\n"
    "reports memory bandwidth and huge pages. Exit code 1 if a level computes wrong results.\n\n"
    "  --quick               verify only, no timings\n"
    "  --format table|json   [table]\n\n"
    "examples\n"
    "  kept check\n"
    "  kept check --format json > check.json\n";

static const char version_page[] = "usage: kept version\nPrints the version.\n";

static const char spec_page[] =
    "A strategy is written as a spec: parts joined by '+', then '@' and a budget.\n\n"
    "  spec    part[+part...][@budget]       no spaces; the order of parts is free\n"
    "  part    name[(option=value,...)]      a name from 'kept ls', each axis at most once\n"
    "  budget  20%      of the K/V bytes that the full cache holds\n"
    "          512      tokens per KV head on average, protected ones included\n"
    "          64MiB    bytes of K/V per sequence\n\n"
    "An axis that is not named takes its default. 'full' takes no budget and no part of another\n"
    "axis but codec, read and rest ('full+q4', 'full+quest', 'full+kvtc'); every other score "
    "needs\n"
    "a budget. A recipe such as 'pyramidkv' stands for a longer spec. A controller such as\n"
    "'adaptive' has states, which are specs themselves and take what they leave open, the budget\n"
    "included, from the spec around them.\n\n"
    "examples\n"
    "  full                                  the whole cache\n"
    "  h2o@20%                               heavy hitters, a fifth of the bytes\n"
    "  streaming(sinks=4)@512                first 4 and last 508 tokens\n"
    "  rdkv@5%                               one budget for eviction and bits per number\n"
    "  snapkv(window=16)+ada+decode(every=8)@64MiB\n"
    "  adaptive(calm=full,tight=snapkv+ada)@25%\n";

static const char presets_page[] =
    "'kept run --preset NAME' sets tasks, patterns, lengths and budgets for an application; flags\n"
    "given beside it stand. The files are share/presets of the source.\n\n";

static const char tasks_page[] =
    "Tasks of 'kept run --task T,...'; docs/tasks.md has their constructions.\n\n"
    "RULER by its names ('ruler': all whose files are given)\n"
    "  niah_single_1 _2 _3, niah_multikey_1 _2 _3, niah_multivalue, niah_multiquery, vt, cwe,\n"
    "  fwe, qa_1, qa_2; niah_single and niah_multikey are noise without --haystack, an essay with\n"
    "  --haystack FILE       prose for niah_*        --words FILE   words for cwe, one a line\n"
    "  --squad FILE          dev-v2.0.json, qa_1     --hotpot FILE  dev distractor file, qa_2\n"
    "  --ruler-compat        RULER's fixed layout and its room for answers\n"
    "  --key|--value word|number|uuid  --keys N  --values N  --queries N  --digits N\n"
    "  nolima                --nolima FILE, its needle set: questions without a word of the "
    "needle\n\n"
    "facts asked turn by turn: 16 (--keys) in one text, 8 (--queries) questions\n"
    "  facts_sequential, _hotspot (Zipf), _periodic (of --values facts [4]), _requery, _random,\n"
    "  facts_update (later lines override)\n\n"
    "your own\n"
    "  jsonl                 --jsonl FILE, prompts as one JSON object per line\n"
    "  text                  --text FILE --score-tokens N, how well a text goes on\n"
    "  stream                --text FILE, all but the first 128 tokens one by one\n\n"
    "several turns           --turns gold      earlier questions with the right answers\n"
    "                        --turns own       with what the model answered\n"
    "                        --turns requests  each question finds the compressed context alone\n"
    "\n"
    "in other words          --perturb KIND    questions otherwise, the context as it is: case, "
    "typo,\n"
    "                        punctuation, layout; or contexts: context-lines (other breaks "
    "between\n"
    "                        lines, sentences, documents), context-order (what fills shuffled),\n"
    "                        context-places (facts elsewhere); 'kept study show --columns "
    "perturb'\n"
    "                        compares with the same run without it\n";

static const struct {
    const char *topic, *page;
} pages[] = {
    {"plan", plan_page},   {"ls", ls_page},           {"show", show_page},
    {"check", check_page}, {"version", version_page}, {"spec", spec_page},
    {"tasks", tasks_page}, {"presets", presets_page},
};

static void print_shapes(void)
{
    char text[1024] = "";
    size_t n = 0;
    for (int i = 0; i < kept_shape_count() && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s ", kept_shape_name(i));
    kept_print_wrapped(stdout, 14, "known shapes:", text);
}

int kept_help_print(const char *topic)
{
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        if (strcmp(pages[i].topic, topic))
            continue;
        fputs(pages[i].page, stdout);
        if (!strcmp(topic, "plan"))
            print_shapes();
        if (!strcmp(topic, "presets"))
            kept_preset_print(stdout);
        return KEPT_EXIT_OK;
    }
    return kept_failed("help", "there is no page '%s'", topic);
}
