//! Not yet written.

<<<<<<< HEAD
pub mod binlog;
=======
pub mod ddl;
>>>>>>> words
