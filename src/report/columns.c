/* columns: how each figure of a row is written. What was not measured is "n/a"; a KL of exactly 0
 * is "0", so that a floor of 0 cannot be mistaken for a small number. */
#include "report/view.h"

#include <math.h>
#include <string.h>

#define P_TOLD 0.05 /* below: told from chance */

double kept_view_number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

const char *kept_view_text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

bool kept_view_true(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

const json_t *kept_view_at(const json_t *list, double i)
{
    return i >= 0 && i < (double)json_array_size(list) ? json_array_get(list, (size_t)i) : NULL;
}

static void write_fixed(char *buf, double x, int digits)
{
    if (isfinite(x))
        snprintf(buf, KEPT_VIEW_TEXT, "%.*f", digits, x);
    else
        snprintf(buf, KEPT_VIEW_TEXT, "n/a");
}

/* Three significant digits without an exponent. */
static void write_short(char *buf, double x)
{
    double a = fabs(x);
    write_fixed(buf, x, a < 9.995 ? 2 : a < 99.95 ? 1 : 0);
}

static void write_percent(char *buf, double x)
{
    write_fixed(buf, x, fabs(x) < 99.95 ? 1 : 0);
}

static void write_held(const json_t *c, char *buf)
{
    write_short(buf, kept_view_number(c, "held_bytes") / 1048576);
}

static void write_held_pct(const json_t *c, char *buf)
{
    write_percent(buf, kept_view_number(c, "held_pct"));
}

static void write_bits(const json_t *c, char *buf)
{
    write_short(buf, kept_view_number(c, "kv_bits"));
}

static void write_peak_pct(const json_t *c, char *buf)
{
    write_percent(buf, kept_view_number(c, "peak_pct"));
}

static void write_steps_pct(const json_t *c, char *buf)
{
    write_percent(buf, kept_view_number(c, "byte_steps_pct"));
}

static void write_read_pct(const json_t *c, char *buf)
{
    write_percent(buf, kept_view_number(c, "read_pct"));
}

static void write_rest_pct(const json_t *c, char *buf)
{
    write_percent(buf, kept_view_number(c, "parked_pct"));
}

static bool rest_quiet(const json_t *c)
{
    return !isfinite(kept_view_number(c, "parked_pct"));
}

/* F16, as the full cache. */
static bool bits_quiet(const json_t *c)
{
    return !(kept_view_number(c, "kv_bits") < 15.95);
}

/* Steps read what is held, and that grows while they go on. */
static bool read_quiet(const json_t *c)
{
    return !(kept_view_number(c, "read_pct") < 0.95 * kept_view_number(c, "held_pct"));
}

static void write_score(const json_t *c, char *buf)
{
    write_percent(buf, 100 * kept_view_number(c, "score"));
}

static void write_interval(const json_t *c, char *buf)
{
    double low = kept_view_number(c, "score_low"), high = kept_view_number(c, "score_high");
    if (isfinite(low) && isfinite(high))
        snprintf(buf, KEPT_VIEW_TEXT, "%.0f-%.0f", 100 * low, 100 * high);
    else
        snprintf(buf, KEPT_VIEW_TEXT, "n/a");
}

/* "!" marks a change that is told from chance. */
static void mark_told(const json_t *c, char *buf)
{
    size_t n = strlen(buf);
    if (kept_view_number(c, "p") < P_TOLD && n + 1 < KEPT_VIEW_TEXT) {
        buf[n] = '!';
        buf[n + 1] = 0;
    }
}

static void write_change(const json_t *c, char *buf)
{
    double x = 100 * kept_view_number(c, "change");
    if (!isfinite(x))
        snprintf(buf, KEPT_VIEW_TEXT, "n/a");
    else
        snprintf(buf, KEPT_VIEW_TEXT, x == 0 ? "0" : "%+.1f", x);
    mark_told(c, buf);
}

static void write_flips(const json_t *c, char *buf)
{
    double b = kept_view_number(c, "regressions"), i = kept_view_number(c, "improvements");
    if (kept_view_number(c, "n_pairs") > 0 && isfinite(b) && isfinite(i))
        snprintf(buf, KEPT_VIEW_TEXT, "%.0f/%.0f", b, i);
    else
        snprintf(buf, KEPT_VIEW_TEXT, "n/a");
}

static void write_kl(const json_t *c, char *buf)
{
    double x = kept_view_number(c, "kl");
    if (x == 0)
        snprintf(buf, KEPT_VIEW_TEXT, "0");
    else if (x > 0 && x < 0.0005)
        snprintf(buf, KEPT_VIEW_TEXT, "%.0e", x);
    else
        write_fixed(buf, x, x < 9.995 ? 3 : 1);
}

static void write_top1(const json_t *c, char *buf)
{
    write_percent(buf, 100 * kept_view_number(c, "top1"));
}

static void write_mass(const json_t *c, char *buf)
{
    write_percent(buf, 100 * kept_view_number(c, "mass_recall"));
}

static void write_core(const json_t *c, char *buf)
{
    write_percent(buf, 100 * kept_view_number(c, "mass_recall_core"));
}

static void write_regret(const json_t *c, char *buf)
{
    write_percent(buf, 100 * kept_view_number(c, "oracle_regret"));
}

static void write_evidence(const json_t *c, char *buf)
{
    write_percent(buf, 100 * kept_view_number(c, "evidence_recall"));
}

static void write_ppl(const json_t *c, char *buf)
{
    double x = kept_view_number(c, "ppl");
    write_fixed(buf, x, x < 99.995 ? 2 : x < 9999 ? 1 : 0);
}

static void write_nll(const json_t *c, char *buf)
{
    double x = kept_view_number(c, "change");
    if (!isfinite(x))
        snprintf(buf, KEPT_VIEW_TEXT, "n/a");
    else
        snprintf(buf, KEPT_VIEW_TEXT, x == 0 ? "0" : "%+.3f", x);
    mark_told(c, buf);
}

static void write_nll_interval(const json_t *c, char *buf)
{
    double low = kept_view_number(c, "change_low"), high = kept_view_number(c, "change_high");
    if (!isfinite(low) || !isfinite(high))
        snprintf(buf, KEPT_VIEW_TEXT, "n/a");
    else if (low == 0 && high == 0)
        snprintf(buf, KEPT_VIEW_TEXT, "0");
    else
        snprintf(buf, KEPT_VIEW_TEXT, "%+.3f %+.3f", low, high);
}

static void write_prefill(const json_t *c, char *buf)
{
    write_short(buf, kept_view_number(c, "prefill_ns") / 1e9);
}

static void write_speed(const json_t *c, char *buf)
{
    write_short(buf, kept_view_number(c, "tokens_per_s"));
}

static void write_ratio(const json_t *c, char *buf)
{
    write_short(buf, kept_view_number(c, "speed_ratio"));
}

static void write_evict(const json_t *c, char *buf)
{
    double score = kept_view_number(c, "score_ns") / 1e6;
    double compact = kept_view_number(c, "compact_ns") / 1e6;
    if (isfinite(score) && isfinite(compact))
        snprintf(buf, KEPT_VIEW_TEXT, "%.0f+%.0f", score, compact);
    else
        snprintf(buf, KEPT_VIEW_TEXT, "n/a");
}

#define BYTES                                                                                      \
    {{"held", "MiB"}, write_held, NULL}, {{"of", "full%"}, write_held_pct, NULL},                  \
        {{"", "bits"}, write_bits, bits_quiet}, {{"", "peak%"}, write_peak_pct, NULL},             \
        {{"byte-", "step%"}, write_steps_pct, NULL}, {{"", "read%"}, write_read_pct, read_quiet},  \
    {                                                                                              \
        {"", "rest%"}, write_rest_pct, rest_quiet                                                  \
    }
#define TIMES                                                                                      \
    {{"prefl", "s"}, write_prefill, NULL}, {{"", "tok/s"}, write_speed, NULL},                     \
        {{"x", "full"}, write_ratio, NULL},                                                        \
    {                                                                                              \
        {"evict", "ms"}, write_evict, NULL                                                         \
    }

static const kept_column generate_columns[] = {
    BYTES,
    {{"", "score"}, write_score, NULL},
    {{"95%", "range"}, write_interval, NULL},
    {{"vs", "full"}, write_change, NULL},
    {{"", "-/+"}, write_flips, NULL},
    {{"", "KL"}, write_kl, NULL},
    {{"top-", "1%"}, write_top1, NULL},
    {{"mass", "%"}, write_mass, NULL},
    {{"re-", "gret"}, write_regret, NULL},
    {{"evid", "%"}, write_evidence, NULL},
    TIMES,
};

static const kept_column score_columns[] = {
    BYTES,
    {{"", "ppl"}, write_ppl, NULL},
    {{"NLL vs", "full"}, write_nll, NULL},
    {{"95%", "range"}, write_nll_interval, NULL},
    {{"", "KL"}, write_kl, NULL},
    {{"top-", "1%"}, write_top1, NULL},
    {{"mass", "%"}, write_mass, NULL},
    {{"core", "%"}, write_core, NULL},
    {{"re-", "gret"}, write_regret, NULL},
    TIMES,
};

const kept_column *kept_view_columns(bool generate, int *n)
{
    *n = generate ? (int)(sizeof generate_columns / sizeof *generate_columns)
                  : (int)(sizeof score_columns / sizeof *score_columns);
    return generate ? generate_columns : score_columns;
}

bool kept_view_shows(const kept_column *c, const json_t *cells)
{
    const json_t *cell;
    size_t i;
    json_array_foreach(cells, i, cell) if (!c->quiet || !c->quiet(cell)) return true;
    return !c->quiet || !cells;
}

static bool all_quiet(const json_t *cells, bool (*quiet)(const json_t *))
{
    const kept_column c = {.quiet = quiet};
    return !kept_view_shows(&c, cells);
}

void kept_view_legend(FILE *out, const json_t *cells, bool generate, bool score)
{
    fputs(
        "held     MiB of KV cache and its bookkeeping right after the eviction; of full%: relative "
        "to the full cache\n",
        out);
    if (!all_quiet(cells, bits_quiet))
        fputs("bits     for each number of K and V, scales and tables included\n", out);
    fputs("peak%    most bytes ever held, byte-step%: bytes held summed over tokens; both relative "
          "to the full cache\n",
          out);
    if (!all_quiet(cells, read_quiet))
        fputs("read%    bytes that a decode step reads to attend (pages, and notes on pages), "
              "relative to the full cache's\n",
              out);
    if (!all_quiet(cells, rest_quiet))
        fputs(
            "rest%    bytes of the sequence while it was parked, relative to the full cache held; "
            "times: kept study show\n         FILE --columns rest\n",
            out);
    if (generate)
        fputs(
            "score    task score in %, with its 95% Wilson range; vs full: change in points; -/+: "
            "samples lost/gained\n",
            out);
    if (score)
        fputs(
            "ppl      perplexity of the true text; NLL vs full: change in nats per token, with its "
            "95% range\n",
            out);
    fputs("KL       nats between the full cache's next-token distribution and this row's; top-1: "
          "same "
          "favourite token\n",
          out);
    if (generate)
        fputs("         (in answered tasks: where the answer starts)\n", out);
    fputs("mass     mass_recall: share of the full cache's attention that lies on tokens still "
          "held\n",
          out);
    if (score)
        fputs("core     mass without the first 4 and last 32 tokens, which nearly every strategy "
              "keeps\n",
              out);
    fputs("regret   oracle_regret: what the best choice of as many tokens would have held of that, "
          "less mass\n",
          out);
    if (generate)
        fputs("evid     evidence_recall: share of the answer's tokens still held, mean over layers "
              "and heads\n",
              out);
    fputs("prefl    seconds to read the prompt, shared by all rows but those that evict while "
          "reading\n"
          "tok/s    decoding one sequence alone; x full: relative to the full cache timed side by "
          "side\n"
          "evict    milliseconds per sample spent choosing + moving\n",
          out);
}
