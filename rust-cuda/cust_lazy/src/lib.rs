//! cust_lazy
