/* sequential_view: where a run that may stop early stopped, as text. */
#include "report/view.h"

#include <string.h>

kept_status kept_report_sequential(const json_t *result, FILE *out)
{
    const json_t *s = json_object_get(result, "sequential"), *t, *r;
    size_t i, k;
    if (!s)
        return KEPT_OK;
    fprintf(out,
            "stopping at verdicts: margin %.4g pt, level %.4g%%, at any look, all rows and "
            "tasks together\n",
            100 * kept_view_number(s, "margin"), 100 * kept_view_number(s, "level"));
    json_array_foreach(json_object_get(s, "tasks"), i, t)
    {
        const double task = kept_view_number(t, "task");
        fprintf(out, "  %s: %s after %.0f of %.0f samples\n",
                kept_view_text(kept_view_at(json_object_get(result, "tasks"), task), "label"),
                kept_view_true(t, "settled") ? "every row settled" : "some row open",
                kept_view_number(t, "n"), kept_view_number(t, "of"));
        json_array_foreach(json_object_get(s, "rows"), k, r)
        {
            if (kept_view_number(r, "task") != task)
                continue;
            fprintf(out, "    %-13s %-32.60s", kept_view_text(r, "verdict"),
                    kept_view_text(kept_view_at(json_object_get(result, "variants"),
                                                kept_view_number(r, "variant")),
                                   "name"));
            if (kept_view_number(r, "after") > 0)
                fprintf(out, " after %.0f", kept_view_number(r, "after"));
            fputc('\n', out);
        }
    }
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
