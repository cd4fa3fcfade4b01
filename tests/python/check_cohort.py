"""The page of a cohort in Chromium, held against its table: sorted, filtered, printed, without scripts, and without the network.

usage: check_cohort.py OUTPUT_FOLDER [SCREENSHOT_FOLDER]
"""
import csv
import pathlib
import sys

from browser import Browser

output = pathlib.Path(sys.argv[1])
keep = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
page = output / 'report.html'
rows = list(csv.DictReader(open(output / 'findings.csv', encoding='utf-8')))
failures = list(csv.DictReader(open(output / 'failures.csv', encoding='utf-8')))
done = sorted({row['series_instance_uid'] for row in rows})
lungs = {row['series_instance_uid']: float(row['volume_ml']) for row in rows if row['finding'] == 'lung'}
text = page.read_text(encoding='utf-8')
for patient_text in ('Phantom^Chest', 'ROENTGEN-PHANTOM'):
    assert patient_text not in text, 'patient text in the page'

SHOWN = "[...document.querySelectorAll('#gallery .case')].filter(f => !f.hidden).map(f => f.querySelector('.uid').textContent)"


def choose(browser, control, option):
    """An option by its text, as a person picks it."""
    script = f"""(() => {{ const s = document.getElementById({control!r});
        const o = [...s.options].find(o => o.text === {option!r}); if (!o) return [...s.options].map(o => o.text);
        s.value = o.value; s.dispatchEvent(new Event('change')); return true; }})()"""
    found = browser.value(script)
    assert found is True, f'{control} has {found}, not {option}'


with Browser() as browser:
    browser.look(1200)
    browser.open(page)
    assert browser.value(f'{SHOWN}.length') == len(done) + len(failures)
    pictures = "[...document.querySelectorAll('.case.done img')]"
    browser.value(f"Promise.all({pictures}.map(i => {{ i.loading = 'eager'; return i.decode(); }}))")
    assert browser.value(f'{pictures}.length') == len(done)
    assert browser.value(f'{pictures}.every(i => i.naturalWidth >= 100)')
    # Sorted by a measurement: as the table says.
    choose(browser, 'sort', 'lung: Volume, ml')
    falling = [uid for uid in browser.value(SHOWN) if uid in lungs]
    assert [lungs[uid] for uid in falling] == sorted(lungs.values(), reverse=True)
    values = browser.value("[...document.querySelectorAll('#gallery .case')].map(f => f.querySelector('.value').textContent)")
    assert abs(float(values[0]) - max(lungs.values())) <= 1e-3 * max(lungs.values()), values[0]
    choose(browser, 'order', 'smallest first')
    rising = [uid for uid in browser.value(SHOWN) if uid in lungs]
    assert [lungs[uid] for uid in rising] == sorted(lungs.values())
    # Filtered.
    choose(browser, 'outcome', 'refused')
    refused = sorted(row['series_instance_uid'] for row in failures if row['outcome'] == 'refused')
    assert sorted(browser.value(SHOWN)) == refused
    choose(browser, 'outcome', 'all')
    choose(browser, 'finding', 'lung: present')
    assert sorted(browser.value(SHOWN)) == done
    # Each leads to its own page.
    links = browser.value("[...document.querySelectorAll('.case.done a')].map(a => a.getAttribute('href'))")
    assert len(links) == len(done) and all((output / link).is_file() for link in links), links
    # A histogram for each measurement of each finding, and all values are in its bars.
    plots = browser.value("[...document.querySelectorAll('.histogram')].map(s => [...s.querySelectorAll('title')].map(t => Number(t.textContent)))")
    findings = {row['finding'] for row in rows}
    assert len(plots) == 3 * len(findings), len(plots)
    assert all(sum(bars) == len(done) for bars in plots), plots
    assert browser.value("document.querySelectorAll('#failures tbody tr').length") == len(failures)
    for width in (1200, 400):
        browser.look(width)
        assert browser.value('document.documentElement.scrollWidth') <= width, f'wider than {width}'
    if keep:
        choose(browser, 'finding', 'all')
        for name, look in {'light': {}, 'dark': {'dark': True}, 'printed': {'printed': True}}.items():
            browser.look(1200, **look)
            browser.screenshot(keep / f'cohort-{name}.png')
    assert not browser.requests and not browser.complaints, (browser.requests, browser.complaints)

with Browser(scripts=False) as browser:
    browser.look(1200)
    browser.open(page)
    assert browser.value(f'{SHOWN}.length') == len(done) + len(failures)
print(f'{len(done)} cases, {len(plots)} histograms, {len(failures)} failures')
