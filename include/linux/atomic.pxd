# SPDX-License-Identifier: GPL-2.0-only
# Stands in for include/linux/atomic.h, bitops.h and compiler.h of Linux 6.12: the same names over the compiler's builtins.
"""Atomic words, atomic bits and single reads and writes that the compiler may not tear.

Everything is an inline over `__atomic_*`, so that ThreadSanitizer sees what the code means. Read-modify-write operations are
sequentially consistent, plain reads and writes are relaxed, as in the kernel.
"""


cdef extern from *:
    """
    #ifndef KSM_ATOMIC_DEFINED
    #define KSM_ATOMIC_DEFINED
    #define KSM_READ_ONCE(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
    #define KSM_WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
    #define KSM_SMP_LOAD_ACQUIRE(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
    #define KSM_SMP_STORE_RELEASE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELEASE)
    #define KSM_SMP_MB() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    #define KSM_SMP_RMB() __atomic_thread_fence(__ATOMIC_ACQUIRE)
    #define KSM_SMP_WMB() __atomic_thread_fence(__ATOMIC_RELEASE)
    #define KSM_ADD_RETURN(p, v) __atomic_add_fetch((p), (v), __ATOMIC_SEQ_CST)
    #define KSM_FETCH_OR(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
    #define KSM_FETCH_AND(p, v) __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST)
    #define KSM_XCHG(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
    static inline int ksm_cmpxchg_int(int *p, int old, int new_)
    {
        return __atomic_compare_exchange_n(p, &old, new_, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
    #ifdef __SANITIZE_THREAD__
    #define KSM_DATA_RACE __attribute__((noinline, unused, no_sanitize("thread"))) static
    #else
    #define KSM_DATA_RACE static inline
    #endif
    KSM_DATA_RACE unsigned int ksm_data_race_uint(volatile unsigned int *p) { return *p; }
    KSM_DATA_RACE unsigned long ksm_data_race_ulong(volatile unsigned long *p) { return *p; }
    KSM_DATA_RACE void *ksm_data_race_ptr(void *volatile *p) { return *p; }
    KSM_DATA_RACE int ksm_data_race_cmpxchg(unsigned int *p, unsigned int old, unsigned int new_)
    {
        return __atomic_compare_exchange_n(p, &old, new_, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
    #if defined(__x86_64__) || defined(__i386__)
    #define KSM_CPU_RELAX() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define KSM_CPU_RELAX() __asm__ volatile("yield")
    #else
    #define KSM_CPU_RELAX() ((void)0)
    #endif
    #define KSM_LIKELY(x) __builtin_expect(!!(x), 1)
    #endif
    """
    # The arguments of the first six are lvalues: the macros take their address.
    int READ_ONCE_int "KSM_READ_ONCE"(int x) noexcept nogil
    unsigned int READ_ONCE_uint "KSM_READ_ONCE"(unsigned int x) noexcept nogil
    unsigned long READ_ONCE_ulong "KSM_READ_ONCE"(unsigned long x) noexcept nogil
    void *READ_ONCE_ptr "KSM_READ_ONCE"(void *x) noexcept nogil
    void WRITE_ONCE_int "KSM_WRITE_ONCE"(int x, int v) noexcept nogil
    void WRITE_ONCE_uint "KSM_WRITE_ONCE"(unsigned int x, unsigned int v) noexcept nogil
    void WRITE_ONCE_ulong "KSM_WRITE_ONCE"(unsigned long x, unsigned long v) noexcept nogil
    void WRITE_ONCE_ptr "KSM_WRITE_ONCE"(void *x, void *v) noexcept nogil
    unsigned long smp_load_acquire_ulong "KSM_SMP_LOAD_ACQUIRE"(unsigned long x) noexcept nogil
    void *smp_load_acquire_ptr "KSM_SMP_LOAD_ACQUIRE"(void *x) noexcept nogil
    int smp_load_acquire_int "KSM_SMP_LOAD_ACQUIRE"(int x) noexcept nogil
    void smp_store_release_int "KSM_SMP_STORE_RELEASE"(int x, int v) noexcept nogil
    void smp_store_release_ulong "KSM_SMP_STORE_RELEASE"(unsigned long x, unsigned long v) noexcept nogil
    void smp_store_release_ptr "KSM_SMP_STORE_RELEASE"(void *x, void *v) noexcept nogil
    void smp_mb "KSM_SMP_MB"() noexcept nogil
    void smp_rmb "KSM_SMP_RMB"() noexcept nogil
    void smp_wmb "KSM_SMP_WMB"() noexcept nogil
    void cpu_relax "KSM_CPU_RELAX"() noexcept nogil
    bint likely "KSM_LIKELY"(bint x) noexcept nogil
    int atomic_add_return "KSM_ADD_RETURN"(int *p, int v) noexcept nogil
    long atomic_long_add_return "KSM_ADD_RETURN"(long *p, long v) noexcept nogil
    unsigned int atomic_fetch_or "KSM_FETCH_OR"(unsigned int *p, unsigned int v) noexcept nogil
    unsigned int atomic_fetch_and "KSM_FETCH_AND"(unsigned int *p, unsigned int v) noexcept nogil
    unsigned long atomic_long_fetch_or "KSM_FETCH_OR"(unsigned long *p, unsigned long v) noexcept nogil
    unsigned long atomic_long_fetch_and "KSM_FETCH_AND"(unsigned long *p, unsigned long v) noexcept nogil
    unsigned long xchg_ulong "KSM_XCHG"(unsigned long *p, unsigned long v) noexcept nogil
    int xchg_int "KSM_XCHG"(int *p, int v) noexcept nogil
    bint atomic_try_cmpxchg "ksm_cmpxchg_int"(int *p, int old, int new_) noexcept nogil
    # data_race() of the kernel: another thread may be writing there with a plain store, as mm/ksm.c does. The word is read whole, and may
    # be out of date. ThreadSanitizer does not check it. data_race_cmpxchg() is atomic_try_cmpxchg() at such a place.
    unsigned int data_race_uint "ksm_data_race_uint"(unsigned int *p) noexcept nogil
    unsigned long data_race_ulong "ksm_data_race_ulong"(unsigned long *p) noexcept nogil
    void *data_race_ptr "ksm_data_race_ptr"(void **p) noexcept nogil
    bint data_race_cmpxchg "ksm_data_race_cmpxchg"(unsigned int *p, unsigned int old, unsigned int new_) noexcept nogil


cdef inline int atomic_read(int *v) noexcept nogil:
    return READ_ONCE_int(v[0])


cdef inline void atomic_set(int *v, int i) noexcept nogil:
    WRITE_ONCE_int(v[0], i)


cdef inline void atomic_inc(int *v) noexcept nogil:
    atomic_add_return(v, 1)


cdef inline void atomic_dec(int *v) noexcept nogil:
    atomic_add_return(v, -1)


cdef inline bint atomic_dec_and_test(int *v) noexcept nogil:
    return atomic_add_return(v, -1) == 0


cdef inline bint atomic_inc_not_zero(int *v) noexcept nogil:
    # The load acquires, because a thread that reads 0 may go on to use what the last user has left. The kernel has fences at such places,
    # which ThreadSanitizer does not know.
    cdef int old = smp_load_acquire_int(v[0])
    while old != 0:
        if atomic_try_cmpxchg(v, old, old + 1):
            return True
        old = smp_load_acquire_int(v[0])
    return False


cdef inline long atomic_long_read(long *v) noexcept nogil:
    return <long>READ_ONCE_ulong((<unsigned long *>v)[0])


cdef inline void atomic_long_set(long *v, long i) noexcept nogil:
    WRITE_ONCE_ulong((<unsigned long *>v)[0], <unsigned long>i)


cdef inline void atomic_long_inc(long *v) noexcept nogil:
    atomic_long_add_return(v, 1)


cdef inline void atomic_long_dec(long *v) noexcept nogil:
    atomic_long_add_return(v, -1)


cdef inline void atomic_long_add(long i, long *v) noexcept nogil:
    atomic_long_add_return(v, i)


cdef inline bint test_bit(int nr, unsigned long *addr) noexcept nogil:
    return (READ_ONCE_ulong(addr[0]) >> nr) & 1


cdef inline void set_bit(int nr, unsigned long *addr) noexcept nogil:
    atomic_long_fetch_or(addr, <unsigned long>1 << nr)


cdef inline void clear_bit(int nr, unsigned long *addr) noexcept nogil:
    atomic_long_fetch_and(addr, ~(<unsigned long>1 << nr))
