# SPDX-License-Identifier: GPL-2.0-only
"""The source in headless Chromium: folding, hiding, the three files, a phone: tox -e study. See chromium.py."""

from pathlib import Path

import pytest
from chromium import missing, screenshot, start

from ksm.study.kernel import read_kernel
from ksm.study.page import NAME, render

pytestmark = pytest.mark.browser

WINDOWS = [(390, 844), (1000, 800), (1440, 900), (2560, 1440)]
# Boxes of what is shown at an address, without what is scrolled away
VISIBLE = """
const inside = (e) => { const b = e.getBoundingClientRect(), c = document.getElementById('code').getBoundingClientRect();
  return b.height > 0 && b.bottom > c.top && b.top < c.bottom; };
const shown = (id) => { const e = document.getElementById(id); return !!e && e.getClientRects().length > 0; };
const settled = async () => { const code = document.getElementById('code');
  for (let at = -1, still = 0; still < 6; still = code.scrollTop === at ? still + 1 : 0, at = code.scrollTop) await later(); };
const later = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))));
"""


@pytest.fixture(scope="module")
def browser():
    driver = start()
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(linux, tmp_path_factory):
    """The page beside a version in which a few things have other names and other places."""
    folder = tmp_path_factory.mktemp("source")
    newer = folder / "mm/ksm.c"
    newer.parent.mkdir()
    text = (linux / "mm/ksm.c").read_text()
    newer.write_text(text.replace("FAULT_FLAG_UNSHARE |", "FAULT_FLAG_WRITE |"))
    path = folder / NAME
    path.write_text(render(read_kernel(str(linux)), [], read_kernel(str(newer))), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, page):
    def at(address, width=1440, height=900):
        browser.get("about:blank")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1,
                                                                       "mobile": width < 500})
        browser.get(f"file://{page}#{address}")
        return browser

    browser.get_log("browser")
    yield at
    assert browser.get_log("browser") == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def run(browser, script):
    """What the body of an async function returns."""
    return browser.execute_async_script(f"{VISIBLE} const done = arguments[arguments.length - 1]; (async () => {{{script}}})().then(done)")


def test_a_helper_folds(opened):
    browser = opened("f-write_protect_pte")
    result = run(browser, """
      await later();
      const bar = document.getElementById('f-write_protect_pte');
      const lines = [...document.querySelectorAll('[data-part="write_protect_pte"]')];
      const section = bar.closest('section').id, seen = inside(bar), before = lines.every(line => line.getClientRects().length);
      const kernel = [...bar.closest('.rows').querySelectorAll('code[id^=k]')], all = kernel.length;
      bar.click();
      const folded = lines.every(line => !line.getClientRects().length), said = bar.getAttribute('aria-expanded');
      const still = kernel.filter(line => line.getClientRects().length).length;
      location.hash = lines[5].id;
      await later();
      const again = lines.every(line => line.getClientRects().length);
      return {section, seen, before, folded, said, all, still, again, asked: inside(lines[5])};
    """)
    assert result.pop("all") == result.pop("still") > 40
    assert result == {"section": "f-write_protect_page", "seen": True, "before": True, "folded": True, "said": "false", "again": True,
                      "asked": True}
    screenshot(browser, "helper")


def test_all_helpers_and_what_is_ours(opened):
    result = run(opened("f-stable_tree_search"), """
      await later();
      const helpers = document.getElementById('helpers'), hooks = document.getElementById('hooks');
      const count = (what) => [...document.querySelectorAll(what)].filter(each => each.getClientRects().length).length;
      const parts = count('[data-part]');
      helpers.click();
      const folded = count('[data-part]'), bars = count('.bar');
      helpers.click();
      const ours = count('.only-ours'), steps = count('[data-hook]');
      hooks.click();
      const hidden = [count('.only-ours'), count('[data-hook]')], pressed = hooks.getAttribute('aria-pressed');
      await later();
      const section = document.getElementById('f-stable_tree_search'), here = inside(section.querySelector('h2'));
      const hook = document.querySelector('#f-cmp_and_merge_page [data-hook]');
      show(hook);
      return {parts, folded, bars, ours, steps, hidden, pressed, here, back: hook.getClientRects().length, again: count('.only-ours')};
    """)
    assert result["parts"] > 150 and result["folded"] == 0 and result["bars"] >= 7
    assert result["ours"] == result["again"] > 15 and result["steps"] > 40
    assert (result["hidden"], result["pressed"], result["here"], result["back"]) == ([0, 0], "false", True, 1)


def test_the_licence_is_folded_until_it_is_asked_for(opened):
    result = run(opened("source"), """
      await later();
      const opening = document.querySelector('.opening'), first = document.getElementById('k1');
      const closed = !opening.open && !first.checkVisibility();
      const search = document.getElementById('search');
      search.value = 'SPDX-License';
      search.dispatchEvent(new Event('input'));
      search.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }));
      await later();
      return {closed, open: opening.open, seen: inside(first), hit: first.className};
    """)
    assert result == {"closed": True, "open": True, "seen": True, "hit": "hit"}


def test_the_search_goes_through_all_files(opened):
    result = run(opened("source"), """
      const search = document.getElementById('search'), found = document.getElementById('found'), seen = {};
      for (const text of ['COW_KSM', '____rb_erase_color(', 'no such words']) {
        search.value = text;
        search.dispatchEvent(new Event('input'));
        const files = new Set();
        do {
          search.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }));
          await later();
          const hits = [...document.querySelectorAll('code.hit')];
          for (const hit of hits) if (inside(hit)) files.add(hit.id.replace(/[0-9]+/, ''));
        } while (/^line (\\d+) of (?!\\1$)/.test(found.textContent));
        seen[text] = [[...files].sort(), found.textContent];
      }
      search.value = 'wp_page_copy';
      search.dispatchEvent(new Event('input'));
      seen.index = [...document.querySelectorAll('#index li:not([hidden])')].map(each => each.textContent.trim());
      search.value = '';
      search.dispatchEvent(new Event('input'));
      seen.all = document.querySelectorAll('#index li[hidden]').length;
      return seen;
    """)
    assert set(result["COW_KSM"][0]) >= {"km", "pm"}
    assert set(result["____rb_erase_color("][0]) >= {"kr", "pr"}
    assert result["no such words"] == [[], "not in the text"]
    assert result["index"] == ["__wp_page_copy_user", "wp_page_copy"] and result["all"] == 0


def test_the_file_and_the_function_in_sight_are_marked(opened):
    result = run(opened("f-do_wp_page"), """
      await later();
      const told = () => ['#files [aria-current]', '#index .here'].map(each => document.querySelector(each).textContent.trim());
      const first = told();
      document.querySelector('#files a[href="#file-r"]').click();
      await settled();
      const second = told()[0], frame = document.getElementById('code').getBoundingClientRect();
      const high = document.getElementById('file-r').getBoundingClientRect().top - frame.top;
      document.querySelector('#f-stable_tree_search a[href="#f-rb_insert_color"]').click();
      await settled();
      return [...first, second, ...told(), high >= 0 && high < 60];
    """)
    assert result.pop()
    assert result == ["mm/memory.c", "do_wp_page", "lib/rbtree.c", "lib/rbtree.c", "rb_insert_color"]


def test_a_change_is_told_at_its_function_and_in_the_line(opened):
    browser = opened("f-break_ksm")
    result = run(browser, """
      await later();
      const section = document.getElementById('f-break_ksm'), line = section.querySelector('code[data-new]');
      const change = [...document.querySelectorAll('#changes details')].find(each => each.textContent.includes('break_ksm'));
      change.open = true;
      const marks = [...change.querySelectorAll('mark')].map(each => each.textContent), since = section.querySelector('.since').textContent;
      return {since, line: line.textContent, marks, kinds: document.querySelector('.kinds').textContent};
    """)
    assert "behaviour" in result["since"] and "Since 6.2: A merged page is broken by an unshare fault" in result["since"]
    assert "FAULT_FLAG_UNSHARE" in result["line"] and result["marks"] == ["FAULT_FLAG_WRITE", "FAULT_FLAG_UNSHARE"]
    assert result["kinds"].startswith("By kind: 1 behaviour")
    screenshot(browser, "change")


@pytest.mark.parametrize(("width", "height"), WINDOWS)
def test_everything_is_in_the_window(opened, width, height):
    browser = opened("f-stable_tree_search", width, height)
    result = run(browser, """
      await later();
      const phone = innerWidth <= 700, bad = [];
      const controls = '#tools a, #tools button, #nav input, #nav button, .bar, .opening summary, #code :is(h2, .labels) a';
      for (const each of document.querySelectorAll(controls)) {
        const box = each.getBoundingClientRect(), nav = each.closest('#nav')?.getBoundingClientRect();
        if (!box.width) continue;
        if (nav && box.right > nav.right) bad.push([each.textContent, box.right, nav.right]);
        if (box.left < 0 || box.right > innerWidth + 1) bad.push([each.textContent, box.left, box.right]);
        if (phone && box.height < 39.5) bad.push([each.textContent, box.height]);
      }
      const code = document.getElementById('code');
      const sides = ['k', 'p'].map(side => [...document.querySelectorAll(`#f-stable_tree_search code[id^=${side}]`)]
        .filter(each => each.getClientRects().length).length);
      return {bad, wide: [document.documentElement.scrollWidth > innerWidth, code.scrollWidth > code.clientWidth], sides,
              seen: inside(document.querySelector('#f-stable_tree_search h2'))};
    """)
    assert result["bad"] == [] and result["wide"] == [False, False] and result["seen"]
    assert all(result["sides"]) == (width > 700) and any(result["sides"])
    screenshot(browser, f"source-{width}")


def test_a_phone_shows_one_side(opened):
    result = run(opened("f-cmp_and_merge_page", 390, 844), """
      await later();
      const section = document.getElementById('f-cmp_and_merge_page');
      const seen = (side) => [...section.querySelectorAll(`code[id^=${side}]`)].filter(each => each.getClientRects().length).length;
      const count = () => ['k', 'p'].map(seen);
      const first = count();
      document.querySelector('#sides [data-side="kernel"]').click();
      await later();
      const second = count(), here = inside(section.querySelector('h2'));
      const pressed = document.querySelector('#sides [aria-pressed="true"]').textContent;
      const own = section.querySelector('code[id^=p]');
      location.hash = own.id;
      await later();
      return {first, second, here, pressed, third: count(), asked: inside(own)};
    """)
    (no_kernel, port), (kernel, no_port) = result["first"], result["second"]
    assert no_kernel == no_port == 0 and port > 50 and kernel > 50
    assert (result["here"], result["pressed"], result["third"], result["asked"]) == (True, "Kernel", [0, port], True)


def test_print_has_both_sides(opened):
    browser = opened("f-break_ksm")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        shown = run(browser, """
          return {tools: shown('tools'), nav: shown('nav'),
                  both: ['k', 'p'].every(side => document.querySelector(`#f-break_ksm code[id^=${side}]`).getClientRects().length)};
        """)
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == {"tools": False, "nav": False, "both": True}


def test_the_keyboard_reaches_the_code_and_folds_a_helper(opened):
    browser = opened("f-write_protect_page")
    result = run(browser, """
      await later();
      const code = document.getElementById('code'), bar = document.getElementById('f-write_protect_pte');
      bar.focus();
      return {code: code.tabIndex, focused: document.activeElement === bar, names: [...document.querySelectorAll('#tools button')]
        .filter(each => each.getClientRects().length).map(each => [each.textContent, each.hasAttribute('aria-pressed')])};
    """)
    assert result == {"code": 0, "focused": True, "names": [["Ours", True], ["Helpers", True]]}
    browser.switch_to.active_element.send_keys(" ")
    assert run(browser, "return document.getElementById('f-write_protect_pte').getAttribute('aria-expanded')") == "false"


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_rules_of_accessibility(opened, width, scheme):
    try:
        import axe_core_python
    except ImportError:
        missing("axe-core-python")
    browser = opened("f-write_protect_page", width)
    browser.execute_script(Path(axe_core_python.__file__).with_name("axe.min.js").read_text())
    # A few functions are enough, and as many elements as the page has take ten seconds.
    found = run(browser, f"""
      document.documentElement.dataset.theme = '{scheme}';
      const kept = ['f-write_protect_page', 'f-break_cow', 'f-do_wp_page', 'f-cond_resched'];
      for (const each of document.querySelectorAll('section.pair')) if (!kept.includes(each.id)) each.remove();
      await later();
      const result = await axe.run({{ include: [['#source'], ['#nav > header']] }});
      return result.violations.map(each => [each.id, each.nodes[0].html.slice(0, 200)]).concat(result.passes.length > 20 ? [] : ['few']);
    """)
    assert found == []
