"""What the browser does by itself: keys, menus, pictures that come late, files that are saved. Knows no components."""

PICK = """
const layer = (node) => node?.closest('[data-layer]')?.dataset.layer;
let pressed = null;
element.addEventListener('click', (event) => {
  pressed = null;
  if (layer(event.target)) trigger('click', {layer: layer(event.target)});
});
element.addEventListener('pointerdown', ({target}) => { pressed = {target, layer: layer(target)}; });
element.addEventListener('pointerup', ({target}) => {
  if (pressed?.layer && !pressed.target.isConnected && layer(target) === pressed.layer)
    trigger('click', {layer: pressed.layer});
});
element.addEventListener('pointerover', (event) => {
  const cell = event.target.closest('.cell');
  if (cell) cell.title = cell.ariaLabel;
});
element.addEventListener('keydown', (event) => {
  const cell = event.target.closest('.cell');
  const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
  if (!cell || !step) return;
  event.preventDefault();
  let place = cell.closest('td');
  do {
    const row = place.parentElement;
    const line = step[0] ? row.parentElement.rows[row.sectionRowIndex + step[0]] : row;
    place = line && line.cells[place.cellIndex + step[1]];
  } while (place && !place.querySelector('.cell'));
  const next = place && place.querySelector('.cell');
  if (!next) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
"""
"""A click on a layer says which, also where the map is painted anew between press and release, and the browser sees no
click. Arrows move from cell to cell, so that the map is one stop of the Tab key. What a cell says to those who hear the
page, it says under the pointer too."""
NEWEST = """
let newest = props.value;
const turn = (html) => Number(/data-turn="(\\d+)"/.exec(html)?.[1] ?? 0);
watch('value', () => {
  if (turn(props.value) < turn(newest)) props.value = newest;
  else newest = props.value;
});
"""
"""A picture that was begun before the one on show came too late: what it shows is no longer so."""
SAVE = """(file) => {
  const save = (tries) => {
    const button = document.querySelector('#export-file');
    if (button) button.click();
    else if (tries) setTimeout(save, 100, tries - 1);
  };
  if (file) setTimeout(save, 100, 300);
}"""
"""Press the file's own button once it is there: the first time, the browser has to fetch what draws it."""
MENUS = """() => {
  const still = new Set(['Tab', 'Shift', 'Control', 'Alt', 'Meta', 'CapsLock']);
  addEventListener('keydown', (event) => {
    if (!still.has(event.key) || event.target.role !== 'combobox') return;
    event.stopPropagation();
    const menu = document.getElementById(event.target.getAttribute('aria-controls'));
    if (event.key === 'Tab' && menu) menu.tabIndex = -1;
  }, true);
}"""
"""Gradio's menu takes a key that moves the focus, or only goes with another, for something typed: once its box is left
it opens again, and stays open. So such keys do not reach it, and Tab goes past the open list to the next control."""
PICK_POINT = """
const attach = () => {
  const chart = document.querySelector('#front-chart .js-plotly-plot');
  if (!chart || chart.dataset.picks || !chart.on) return;
  chart.dataset.picks = '1';
  chart.on('plotly_click', (event) => {
    const plan = event.points[0] && event.points[0].customdata;
    if (plan) trigger('click', {plan: Array.isArray(plan) ? plan[0] : plan});
  });
};
const panel = document.querySelector('#front-chart');
if (panel) new MutationObserver(attach).observe(panel, {childList: true, subtree: true});
attach();
"""
"""A click on a point of the chart says which plan it is."""
PICK_RUN = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-run]');
  if (button) trigger('click', {run: button.dataset.run});
});
element.addEventListener('change', (event) => {
  const tick = event.target.closest('input[data-tick]');
  if (tick) trigger('select', {tick: tick.dataset.tick});
});
"""
"""A button of the table says which run is planned again, a tick which one is compared."""
ADDRESS = """(choices) => {
  if (!choices) return;
  const query = new URLSearchParams(choices).toString();
  const place = location.pathname + (query ? '?' + query : '') + location.hash;
  if (place !== location.pathname + location.search + location.hash) history.replaceState(null, '', place);
}"""
"""The choices stand in the address, so that a link and a reload lead back to them."""
NAMES = """() => {
  const named = () => ['original', 'compressed'].forEach((id) => {
    const log = document.querySelector(`#${id} [role=log]`), label = document.querySelector(`#${id} label`);
    const name = label && label.textContent.trim();
    if (log && name && log.getAttribute('aria-label') !== name) log.setAttribute('aria-label', name);
  });
  const columns = document.querySelector('#columns');
  if (columns) new MutationObserver(named).observe(columns, {childList: true, subtree: true, characterData: true});
  named();
}"""
"""Both logs of the chat are named apart for whoever hears the page: by their columns' headings, in any language."""
FOCUS = """() => {
  const reached = 'button, input, textarea, select, summary, a[href], [tabindex="0"]';
  const seen = {visibilityProperty: true};
  const can = (element) => element.isConnected && !element.disabled && element.checkVisibility(seen);
  let last = null, boxes = [], again = '', waits = 0, quiet = false, left = null;
  const same = (element) => {
    const {layer, run} = element.dataset, name = (words) => CSS.escape(words ?? '');
    if (layer) return `[data-layer="${name(layer)}"]`;
    if (run) return `[data-run="${name(run)}"]`;
    if (element.type === 'radio') return `#${name(element.closest('[id]')?.id)} input[value="${name(element.value)}"]`;
    if (element.tagName === 'SUMMARY') return `summary[aria-label="${name(element.getAttribute('aria-label'))}"]`;
    return '';
  };
  const inside = (box) => [...box.querySelectorAll(reached)].filter((each) => each.tabIndex >= 0 && can(each));
  const anew = () => {
    const found = again && document.querySelector(again);
    if (!found || !can(found)) return null;
    if (found.matches('.cell')) {
      found.closest('table').querySelectorAll('.cell[tabindex="0"]').forEach((cell) => { cell.tabIndex = -1; });
      found.tabIndex = 0;
    }
    return found;
  };
  const next = () => {
    if (can(last)) return last;
    const found = anew();
    if (found) return found;
    for (const box of boxes) {
      if (!box.isConnected) continue;
      const there = inside(box);
      const after = there.find((each) => last.compareDocumentPosition(each) & Node.DOCUMENT_POSITION_FOLLOWING);
      if (there.length) return last.isConnected && after || there[0];
    }
  };
  const give = (element) => {
    quiet = true;
    element?.focus({preventScroll: true});
    quiet = false;
  };
  const caught = () => {
    waits = 0;
    const now = document.activeElement, back = left && document.hasFocus() && inside(left)[0];
    if (back && !left.contains(now)) {
      give(back);
      left = null;
      return;
    }
    if (!last || !document.hasFocus() || (now && now !== document.body && can(now))) return;
    const row = boxes[0], found = next();
    if (row?.isConnected && !row.contains(found)) left = row;
    give(found);
  };
  const soon = () => { waits ||= setTimeout(caught, 30); };
  const painted = () => {
    if (last && !last.isConnected && document.activeElement === document.body && document.hasFocus()) give(anew());
    soon();
  };
  addEventListener('focus', (event) => { if (quiet) event.stopPropagation(); }, true);
  addEventListener('focusin', ({target}) => {
    last = target;
    again = same(target);
    boxes = [];
    for (let box = target.parentElement; box; box = box.parentElement) boxes.push(box);
  });
  const closed = (box) => box.role === 'combobox' && box === document.activeElement && box.ariaExpanded !== 'true';
  addEventListener('pointerdown', ({target}) => {
    last = left = null;
    if (closed(target)) target.blur();
  }, true);
  addEventListener('focusout', (event) => { if (!event.relatedTarget) soon(); });
  new MutationObserver(painted).observe(document.body, {childList: true, subtree: true, attributeFilter: ['disabled']});
  addEventListener('keydown', (event) => {
    left = null;
    const types = event.key.length === 1 || event.key === 'Backspace' || event.key === 'Delete';
    if ((types || event.key === 'ArrowDown') && closed(event.target)) {
      event.target.blur();
      event.target.focus();
    }
    const shown = event.key === 'Escape' && event.target.closest?.('details.what[open]');
    if (shown) shown.open = false;
  });
}"""
"""Who goes by keyboard never loses the place: a button that is pressed and greyed, a row that is painted anew, a menu
that closes would let the focus fall to the page's beginning. It goes to the same thing painted anew, before a key can
be pressed in between (it would be lost, and the map is painted twice a second while it fills in), else to the next one
beside it: from Make it to Cancel, and back as soon as there is one again. A click on nothing lets go of it, as
ever. Given back to a menu's box, it does not open the menu again until it is clicked, typed in or the arrow goes down:
Gradio opens one when its box is reached and at nothing else, and takes no word while none is open. Escape closes an
explanation."""
RADIOS = """() => {
  let groups = 0;
  const named = () => document.querySelectorAll('input[type=radio]').forEach((radio) => {
    const set = radio.closest('fieldset');
    if (!set) return;
    set.dataset.group ||= `group-${++groups}`;
    if (radio.name !== set.dataset.group) radio.name = set.dataset.group;
  });
  new MutationObserver(named).observe(document.body, {childList: true, subtree: true});
  named();
}"""
"""Gradio gives each radio button a name of its own: none would know of the others, arrow keys would not choose among
them, and each would be a stop of the Tab key. With one name they are one group, as everybody expects."""
OPENED = """
const open = new Set();
element.addEventListener('toggle', ({target}) => {
  const kept = target.dataset.keep;
  if (kept && target.isConnected) open[target.open ? 'add' : 'delete'](kept);
}, true);
new MutationObserver(() => open.forEach((kept) => {
  const found = element.querySelector(`details[data-keep="${kept}"]`);
  if (found) found.open = true;
})).observe(element, {childList: true, subtree: true});
"""
"""What a reader has opened stays open while the figures around it are painted anew."""
PANES = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-pane]');
  if (!button) return;
  document.querySelector('#columns').dataset.pane = button.dataset.pane;
  element.querySelectorAll('button').forEach((each) => each.setAttribute('aria-pressed', each === button));
});
"""
"""On a phone one column of the chat is in sight; this says which."""
WIDE = """() => {
  const surface = document.querySelector('#surface'), button = document.querySelector('#wide');
  button.setAttribute('aria-pressed', surface.classList.toggle('wide'));
}"""
"""The chat over the whole width of the page, and back."""
PROJECTOR = """() => {
  const button = document.querySelector('#projector');
  button.setAttribute('aria-pressed', document.documentElement.classList.toggle('projector'));
  dispatchEvent(new Event('resize'));
}"""
"""Larger letters and less beside them, for a room; charts are drawn anew for the width that is left."""
SHARE = """(drawn) => {
  if (!drawn || !drawn.svg) return;
  const place = document.createElement('i');
  place.textContent = location.href.slice(0, 150);
  const theme = document.body.classList.contains('dark') ? 'dark' : 'light';
  const svg = drawn.svg.replace('class="light"', `class="${theme}"`).replace('{{link}}', place.innerHTML);
  const picture = new Image();
  picture.onload = () => {
    const canvas = document.createElement('canvas');
    canvas.width = 1200;
    canvas.height = 675;
    canvas.getContext('2d').drawImage(picture, 0, 0, 1200, 675);
    canvas.toBlob((png) => {
      const link = document.createElement('a');
      link.href = URL.createObjectURL(png);
      link.download = 'quantization-studio.png';
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }, 'image/png');
  };
  picture.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(svg);
}"""
"""The picture to share as a PNG of 1200 x 675, in the theme of the page, under its address."""
