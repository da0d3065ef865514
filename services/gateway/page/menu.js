/**
 * What can be done with something: buttons beside the one that opens them.
 */

import { el } from './view.js';

/** Between a menu and the edge of the window. */
const MARGIN_PX = 8;

/** The button of the menu that is open. @type {?HTMLElement} */
let opener = null;
/** Pressed while its menu was open: the press closes it, and its click is not to open it again. */
let closing = null;

addEventListener('pointerdown', ({ target }) => (closing = opener?.contains(target) ? opener : null), true);

/** One thing to do. @param {string} text @param {() => unknown} act @param {object} [more] properties */
export const choice = (text, act, more = {}) =>
  el('button', { type: 'button', class: 'choice', ...more, onclick: act }, text);

/**
 * Opens a menu: `data-of` of its button says what it is of, should that be drawn anew meanwhile. It
 * closes with a choice, Escape, or a press beside it, and the focus goes back.
 * @param {HTMLElement} button @param {string} label
 * @param {...(Node|false|null|undefined)} rows
 */
export function openMenu(button, label, ...rows) {
  const closes = closing === button;
  closing = null;
  if (closes) return;
  const menu = el('div', { class: 'menu', popover: 'auto', role: 'group', 'aria-label': label }, ...rows);
  // Beside an open dialog nothing can be reached.
  (button.closest('dialog') ?? document.body).append(menu);
  button.setAttribute('aria-expanded', 'true');
  menu.addEventListener('beforetoggle', ({ newState }) => {
    if (newState === 'open') opener = button;
    else if (opener === button) opener = null; // it may be the next one's already
  });
  menu.addEventListener('toggle', ({ newState }) => {
    if (newState !== 'closed') return;
    button.setAttribute('aria-expanded', 'false');
    menu.remove();
    if (button.isConnected) return;
    [...document.querySelectorAll('[data-of]')].find(({ dataset }) => dataset.of === button.dataset.of)?.focus();
  });
  menu.addEventListener('click', ({ target }) => target.closest('button') && menu.hidePopover());
  menu.addEventListener('keydown', (event) => {
    const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
    if (!steps[event.key]) return;
    event.preventDefault();
    const buttons = [...menu.querySelectorAll('button')];
    const to = buttons.indexOf(document.activeElement) + steps[event.key];
    buttons.at(to % buttons.length)?.focus();
  });
  menu.showPopover();
  place(menu, button.getBoundingClientRect());
  menu.querySelector('button')?.focus();
}

/** Below what it belongs to, or above it, and inside the window. */
function place(menu, anchor) {
  const { width, height } = menu.getBoundingClientRect();
  const below = anchor.bottom + 4;
  const top = below + height + MARGIN_PX <= innerHeight ? below : anchor.top - height - 4;
  menu.style.left = `${Math.max(MARGIN_PX, Math.min(anchor.left, innerWidth - width - MARGIN_PX))}px`;
  menu.style.top = `${Math.max(MARGIN_PX, Math.min(top, innerHeight - height - MARGIN_PX))}px`;
}
