/* page: the files of src/report/page and the script that draws plots, as the build put them in. */
#include "report/html.h"

#include <string.h>

/* Longer than any compiler must take; every one here does. */
#pragma GCC diagnostic ignored "-Woverlength-strings"
#include "gen/page.inc"

const char *kept_page_part(kept_page_file part, size_t *n)
{
    static const struct {
        const char *text;
        size_t n;
    } parts[] = {
        [KEPT_PAGE_HTML] = {page_page_html, sizeof page_page_html - 1},
        [KEPT_PAGE_CSS] = {page_page_css, sizeof page_page_css - 1},
        [KEPT_PAGE_SCRIPT] = {page_page_js, sizeof page_page_js - 1},
        [KEPT_PAGE_CHARTS] = {page_charts_js, sizeof page_charts_js - 1},
        [KEPT_PAGE_NOTICES] = {page_notices_txt, sizeof page_notices_txt - 1},
        [KEPT_PAGE_PLOTS] = {page_plots, sizeof page_plots - 1},
    };
    *n = parts[part].n;
    return parts[part].text;
}

kept_status kept_page_ready(kept_error *err)
{
    if (sizeof page_plots > 1)
        return KEPT_OK;
    return kept_fail(err, KEPT_UNSUPPORTED,
                     "this kept was built without the script that draws plots; 'scripts/setup.sh "
                     "plots' in its source gets it, then build again");
}
