# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/list.h of Linux 6.12.
"""Rings of list_head with two links, and chains of hlist_node whose head is one pointer.

The macros that take a type or open a loop have no twin in Cython. list_entry() is the kernel's container_of(), written out in an
inline beside the structure, once per type and field:

    cdef inline T *node_entry(list_head *p) noexcept nogil:
        return <T *>(<char *>p - <size_t>&(<T *>NULL).node)

and the list_for_each family is a loop; the _safe forms read the next link before the body:

    pos = head.next                         # list_for_each_safe(pos, n, head)
    while pos != head:
        n = pos.next
        ...
        pos = n

list_empty() may be asked without the lock under which the list changes; what it reads is written in one piece, as in the kernel.
CONFIG_LIST_HARDENED is off.
"""

from linux.atomic cimport READ_ONCE_ptr, WRITE_ONCE_ptr
from linux.poison cimport LIST_POISON1, LIST_POISON2
from linux.types cimport hlist_head, hlist_node, list_head


# An empty ring: the head is its own neighbour.
cdef inline void INIT_LIST_HEAD(list_head *list) noexcept nogil:
    WRITE_ONCE_ptr(list.next, list)
    list.prev = list


cdef inline void __list_add(list_head *new, list_head *prev, list_head *next) noexcept nogil:
    next.prev = new
    new.next = next
    new.prev = prev
    WRITE_ONCE_ptr(prev.next, new)


# Add an entry at the front, as for a stack.
cdef inline void list_add(list_head *new, list_head *head) noexcept nogil:
    __list_add(new, head, head.next)


# Add an entry at the end, as for a queue.
cdef inline void list_add_tail(list_head *new, list_head *head) noexcept nogil:
    __list_add(new, head.prev, head)


cdef inline void __list_del(list_head *prev, list_head *next) noexcept nogil:
    next.prev = prev
    WRITE_ONCE_ptr(prev.next, next)


# __list_del_clearprev(): left out, for the lists of network devices.


cdef inline void __list_del_entry(list_head *entry) noexcept nogil:
    __list_del(entry.prev, entry.next)


# The entry is poisoned: list_empty() must not be asked of it.
cdef inline void list_del(list_head *entry) noexcept nogil:
    __list_del_entry(entry)
    entry.next = <list_head *>LIST_POISON1
    entry.prev = <list_head *>LIST_POISON2


cdef inline void list_replace(list_head *old, list_head *new) noexcept nogil:
    new.next = old.next
    new.next.prev = new
    new.prev = old.prev
    new.prev.next = new


cdef inline void list_replace_init(list_head *old, list_head *new) noexcept nogil:
    list_replace(old, new)
    INIT_LIST_HEAD(old)


# The two may be neighbours. The first then goes behind the place of the second.
cdef inline void list_swap(list_head *entry1, list_head *entry2) noexcept nogil:
    cdef list_head *pos = entry2.prev

    list_del(entry2)
    list_replace(entry1, entry2)
    if pos == entry1:
        pos = entry2
    list_add(entry1, pos)


cdef inline void list_del_init(list_head *entry) noexcept nogil:
    __list_del_entry(entry)
    INIT_LIST_HEAD(entry)


cdef inline void list_move(list_head *list, list_head *head) noexcept nogil:
    __list_del_entry(list)
    list_add(list, head)


cdef inline void list_move_tail(list_head *list, list_head *head) noexcept nogil:
    __list_del_entry(list)
    list_add_tail(list, head)


# The entries from first to last, one stretch of the ring, go in front of head.
cdef inline void list_bulk_move_tail(list_head *head, list_head *first, list_head *last) noexcept nogil:
    first.prev.next = last.next
    last.next.prev = first.prev

    head.prev.next = first
    first.prev = head.prev

    last.next = head
    head.prev = last


cdef inline bint list_is_first(const list_head *list, const list_head *head) noexcept nogil:
    return list.prev == head


cdef inline bint list_is_last(const list_head *list, const list_head *head) noexcept nogil:
    return list.next == head


cdef inline bint list_is_head(const list_head *list, const list_head *head) noexcept nogil:
    return list == head


cdef inline bint list_empty(const list_head *head) noexcept nogil:
    return READ_ONCE_ptr((<list_head *>head).next) == head


# list_del_init_careful(), list_empty_careful(): left out, for readers without a lock.


cdef inline void list_rotate_left(list_head *head) noexcept nogil:
    cdef list_head *first

    if not list_empty(head):
        first = head.next
        list_move_tail(first, head)


# Moving the head is enough to make list the first entry.
cdef inline void list_rotate_to_front(list_head *list, list_head *head) noexcept nogil:
    list_move_tail(head, list)


cdef inline bint list_is_singular(const list_head *head) noexcept nogil:
    return not list_empty(head) and head.next == head.prev


# __list_cut_position(), list_cut_position(), list_cut_before(): left out, no caller here.


cdef inline void __list_splice(const list_head *list, list_head *prev, list_head *next) noexcept nogil:
    cdef list_head *first = list.next
    cdef list_head *last = list.prev

    first.prev = prev
    prev.next = first

    last.next = next
    next.prev = last


cdef inline void list_splice(const list_head *list, list_head *head) noexcept nogil:
    if not list_empty(list):
        __list_splice(list, head, head.next)


cdef inline void list_splice_tail(list_head *list, list_head *head) noexcept nogil:
    if not list_empty(list):
        __list_splice(list, head.prev, head)


cdef inline void list_splice_init(list_head *list, list_head *head) noexcept nogil:
    if not list_empty(list):
        __list_splice(list, head, head.next)
        INIT_LIST_HEAD(list)


cdef inline void list_splice_tail_init(list_head *list, list_head *head) noexcept nogil:
    if not list_empty(list):
        __list_splice(list, head.prev, head)
        INIT_LIST_HEAD(list)


# list_entry() to list_safe_reset_next(): see above.


cdef inline void INIT_HLIST_HEAD(hlist_head *ptr) noexcept nogil:
    ptr.first = NULL


cdef inline void INIT_HLIST_NODE(hlist_node *h) noexcept nogil:
    h.next = NULL
    h.pprev = NULL


# True of an initialised node only: hlist_del() leaves poison, not NULL.
cdef inline bint hlist_unhashed(const hlist_node *h) noexcept nogil:
    return h.pprev is NULL


# hlist_unhashed_lockless(): left out, for readers without a lock.


cdef inline bint hlist_empty(const hlist_head *h) noexcept nogil:
    return h.first is NULL


cdef inline void __hlist_del(hlist_node *n) noexcept nogil:
    cdef hlist_node *next = n.next
    cdef hlist_node **pprev = n.pprev

    pprev[0] = next
    if next is not NULL:
        next.pprev = pprev


cdef inline void hlist_del(hlist_node *n) noexcept nogil:
    __hlist_del(n)
    n.next = <hlist_node *>LIST_POISON1
    n.pprev = <hlist_node **>LIST_POISON2


cdef inline void hlist_del_init(hlist_node *n) noexcept nogil:
    if not hlist_unhashed(n):
        __hlist_del(n)
        INIT_HLIST_NODE(n)


cdef inline void hlist_add_head(hlist_node *n, hlist_head *h) noexcept nogil:
    cdef hlist_node *first = h.first

    n.next = first
    if first is not NULL:
        first.pprev = &n.next
    h.first = n
    n.pprev = &h.first


cdef inline void hlist_add_before(hlist_node *n, hlist_node *next) noexcept nogil:
    n.pprev = next.pprev
    n.next = next
    next.pprev = &n.next
    n.pprev[0] = n


cdef inline void hlist_add_behind(hlist_node *n, hlist_node *prev) noexcept nogil:
    n.next = prev.next
    prev.next = n
    n.pprev = &prev.next

    if n.next is not NULL:
        n.next.pprev = &n.next


# hlist_add_fake(), hlist_fake(): left out, no caller here.


# It reads the node alone, not its head.
cdef inline bint hlist_is_singular_node(hlist_node *n, hlist_head *h) noexcept nogil:
    return n.next is NULL and n.pprev == &h.first


cdef inline void hlist_move_list(hlist_head *old, hlist_head *new) noexcept nogil:
    new.first = old.first
    if new.first is not NULL:
        new.first.pprev = &new.first
    old.first = NULL


# hlist_splice_init(): left out, no caller here.
# hlist_entry() to hlist_for_each_entry_safe(): see above.


cdef inline size_t hlist_count_nodes(hlist_head *head) noexcept nogil:
    cdef size_t count = 0
    cdef hlist_node *pos = head.first

    while pos is not NULL:
        count += 1
        pos = pos.next

    return count
